"""Lowering: what each node becomes for the native executor, and what it costs.

An instruction names buffers by value; ``plan`` numbers them. The order of operands, integers and reals is that of
``csrc/program/ops_*.cc``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gradring.ir import Graph, Node

__all__ = ["ACTIVATIONS", "Instruction", "lower"]

ACTIVATIONS = {None: 0, "relu": 1, "gelu": 2, "silu": 3, "tanh": 4, "sigmoid": 5}

_TRANS_A, _TRANS_B, _ACCUMULATE = 1, 2, 4
_EITHER, _ROWS, _COLUMNS = 0, 1, 2  # which side of the result the lanes share out


@dataclass(frozen=True, slots=True)
class Instruction:
    """One native instruction: operands are names of values, or None where absent."""

    op: str
    operands: tuple[str | None, ...]
    integers: tuple[int, ...] = ()
    reals: tuple[float, ...] = ()
    flops: int = 0
    note: str = ""
    when: str = "always"  # in which micro-batches of an update it runs


def _matrix(graph: Graph, name: str) -> tuple[int, int]:
    """A value as rows of its last axis."""
    value = graph.values[name]
    columns = value.shape[-1]
    return value.size // columns, columns


def _matmul(
    graph: Graph,
    sizes: tuple[int, int, int],
    operands: tuple[str | None, ...],
    flags: int,
    activation: str | None = None,
    mask: str | None = None,
    note: str = "",
    cut: int = _EITHER,
) -> Instruction:
    m, n, k = sizes
    fused = [f"[{what}]" for what, there in (("bias", operands[3]), (activation, activation)) if there]
    fused += [f"[{mask}' mask]"] if mask else []
    fused += ["[column sums]"] if operands[6] else []
    fused += ["[in parts]"] if len(operands) > 7 else []
    integers = (m, n, k, flags, ACTIVATIONS[activation], ACTIVATIONS[mask], cut)
    return Instruction("matmul", operands, integers, flops=2 * m * n * k, note=note + "".join(fused))


def _linear(graph: Graph, node: Node) -> Instruction:
    x, w, y = node.inputs["x"], node.inputs["w"], node.outputs["y"]
    m, k = _matrix(graph, x)
    n = graph.values[w].shape[1]
    operands: tuple[str | None, ...] = (x, w, y, node.inputs.get("b"), node.outputs.get("pre"), None, None)
    if "parts" in node.outputs:
        operands = (*operands, node.outputs["parts"])
    return _matmul(graph, (m, n, k), operands, 0, node.attributes.get("activation"), note="x w")


def _linear_dx(graph: Graph, node: Node) -> Instruction:
    dy, w, dx = node.inputs["dy"], node.inputs["w"], node.outputs["dx"]
    m, k = _matrix(graph, dy)
    n = graph.values[w].shape[0]
    mask = node.attributes.get("activation")
    operands = (dy, w, dx, None, None, node.inputs.get("source"), node.outputs.get("column_sums"))
    return _matmul(graph, (m, n, k), operands, _TRANS_B, None, mask, "dy w'", _COLUMNS)


def _linear_dw(graph: Graph, node: Node) -> Instruction:
    x, dy, dw = node.inputs["x"], node.inputs["dy"], node.outputs["dw"]
    k, m = _matrix(graph, x)
    n = _matrix(graph, dy)[1]
    return _matmul(graph, (m, n, k), (x, dy, dw, None, None, None, None), _TRANS_A, note="x' dy", cut=_ROWS)


def _activation(graph: Graph, node: Node) -> Instruction:
    size = graph.values[node.inputs["x"]].size
    integers = (size, ACTIVATIONS[node.attributes["activation"]])
    return Instruction(
        "activation", (node.inputs["x"], node.outputs["y"]), integers, note=node.attributes["activation"]
    )


def _activation_vjp(graph: Graph, node: Node) -> Instruction:
    size = graph.values[node.inputs["dy"]].size
    integers = (size, ACTIVATIONS[node.attributes["activation"]])
    operands = (node.inputs["dy"], node.inputs["source"], node.outputs["dx"])
    return Instruction("activation_vjp", operands, integers, note=node.attributes["activation"])


def _add(graph: Graph, node: Node) -> Instruction:
    size = graph.values[node.outputs["y"]].size
    return Instruction("add", (node.inputs["a"], node.inputs["b"], node.outputs["y"]), (size,), flops=size)


def _column_sums(graph: Graph, node: Node) -> Instruction:
    rows, columns = _matrix(graph, node.inputs["x"])
    return Instruction("column_sums", (node.inputs["x"], node.outputs["y"]), (rows, columns), flops=rows * columns)


def _dropout(graph: Graph, node: Node) -> Instruction:
    value = graph.values[node.inputs["x"]]
    rows = value.shape[0]
    integers = (rows, value.size // rows, node.attributes["stream"])
    return Instruction("dropout", (node.inputs["x"], node.outputs["y"]), integers, (node.attributes["p"],))


def _loss(graph: Graph, node: Node) -> Instruction:
    shape = graph.values[node.inputs["x"]].shape
    rows = shape[0]
    outputs = (node.outputs.get("dx"), node.outputs.get("column_sums"), node.outputs["totals"])
    columns = graph.values[node.inputs["x"]].size // rows
    integers = (rows, columns, int(node.attributes["sums"]))
    return Instruction(node.op, (node.inputs["x"], node.inputs["target"], *outputs), integers)


def _check_step(graph: Graph, node: Node) -> Instruction:
    return Instruction("check_step", (node.inputs["totals"],), (node.attributes["rows"],))


def _call(inputs: tuple[str, ...], output: str) -> Callable[[Graph, Node], Instruction]:
    def lower_call(graph: Graph, node: Node) -> Instruction:
        names = [node.inputs[role] for role in inputs]
        shapes = [graph.values[name].shape for name in (*names, node.outputs[output])]
        function = node.attributes["function"]
        address = function.address(node.op, shapes, graph.values[names[0]].dtype)
        sizes = [graph.values[name].size for name in names] + [0] * (6 - len(names))
        absent: list[str | None] = [None] * (6 - len(names))
        operands = (*names, *absent, node.outputs[output], node.outputs["answer"])
        integers = (address, *sizes, graph.values[node.outputs[output]].size)
        return Instruction("callback", operands, integers, note=f"{function}.{node.op}")

    return lower_call


def _copy(graph: Graph, node: Node) -> Instruction:
    return Instruction("copy", (node.inputs["x"], node.outputs["y"]), (graph.values[node.inputs["x"]].size,))


def _accumulate(graph: Graph, node: Node) -> Instruction:
    size = graph.values[node.inputs["gradient"]].size
    return Instruction("accumulate", (node.inputs["sum"], node.inputs["gradient"]), (size,), flops=size)


def _squares(graph: Graph, node: Node) -> Instruction:
    size = graph.values[node.inputs["gradient"]].size
    return Instruction("sum_of_squares", (node.inputs["gradient"], node.outputs["sum"]), (size,), flops=2 * size)


def _clip(graph: Graph, node: Node) -> Instruction:
    integers = (0, int("weight" in node.inputs))
    return Instruction("clip", (node.inputs["sum"],), integers, (node.attributes["limit"],))


def _sgd(graph: Graph, node: Node) -> Instruction:
    a = node.attributes
    size = graph.values[node.inputs["param"]].size
    operands = (node.inputs["param"], node.inputs["gradient"], node.inputs.get("momentum"))
    integers = (size, int("weight" in node.inputs), int(a["nesterov"]), int("clip" in node.inputs))
    return Instruction("sgd", operands, integers, (a["momentum"], a["weight_decay"]), flops=6 * size)


def _adam(graph: Graph, node: Node) -> Instruction:
    a = node.attributes
    size = graph.values[node.inputs["param"]].size
    operands = (node.inputs["param"], node.inputs["gradient"], node.inputs["m"], node.inputs["v"])
    reals = (*a["betas"], a["eps"], a.get("weight_decay", 0.0))
    integers = (size, int("weight" in node.inputs), int(node.op == "adamw"), int("clip" in node.inputs))
    note = "decoupled" if node.op == "adamw" else ""
    return Instruction("adam", operands, integers, reals, flops=14 * size, note=note)


def _linear_dw_sgd(graph: Graph, node: Node) -> Instruction:
    a, product = node.attributes, _linear_dw(graph, node)
    m, n, k = product.integers[:3]
    operands = (*product.operands[:3], node.inputs["param"], node.inputs.get("momentum"))
    flops = product.flops + 6 * m * n
    reals = (a["momentum"], a["weight_decay"])
    return Instruction("matmul_sgd", operands, (m, n, k, int(a["nesterov"])), reals, flops, product.note)


def _linear_dw_adam(graph: Graph, node: Node) -> Instruction:
    a, product = node.attributes, _linear_dw(graph, node)
    m, n, k = product.integers[:3]
    operands = (*product.operands[:3], node.inputs["param"], node.inputs["m"], node.inputs["v"])
    decoupled = node.op == "linear_dw_adamw"
    reals = (*a["betas"], a["eps"], a.get("weight_decay", 0.0))
    flops = product.flops + 14 * m * n
    note = product.note + (" decoupled" if decoupled else "")
    return Instruction("matmul_adam", operands, (m, n, k, int(decoupled)), reals, flops, note)


def _largest(graph: Graph, node: Node) -> Instruction:
    size = graph.values[node.inputs["x"]].size
    return Instruction("largest", (node.inputs["x"], node.outputs["y"]), (size,), flops=size)


def _bound_gradient(graph: Graph, node: Node) -> Instruction:
    operands = (node.inputs.get("x"), node.inputs.get("dy"))
    sizes = tuple(0 if name is None else graph.values[name].size for name in operands)
    reals = (float(node.attributes["rows"]), float(node.attributes["dy_bound"]))
    return Instruction("bound_gradient", operands, sizes, reals)


def _check_gradients(graph: Graph, node: Node) -> Instruction:
    name = node.inputs["largest"]
    return Instruction("check_gradients", (name,), (graph.values[name].size,))


_LOWER: Mapping[str, Callable[[Graph, Node], Instruction]] = {
    "linear": _linear,
    "linear_dx": _linear_dx,
    "linear_dw": _linear_dw,
    "linear_dw_sgd": _linear_dw_sgd,
    "linear_dw_adam": _linear_dw_adam,
    "linear_dw_adamw": _linear_dw_adam,
    "activation": _activation,
    "activation_vjp": _activation_vjp,
    "add": _add,
    "copy": _copy,
    "column_sums": _column_sums,
    "dropout": _dropout,
    "cross_entropy": _loss,
    "mse": _loss,
    "binary_cross_entropy": _loss,
    "check_step": _check_step,
    "largest": _largest,
    "bound_gradient": _bound_gradient,
    "check_gradients": _check_gradients,
    "accumulate": _accumulate,
    "sum_of_squares": _squares,
    "clip": _clip,
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adam,
    "function": _call(("x",), "y"),
    "function_vjp": _call(("dy", "x", "y"), "dx"),
}


def lower(graph: Graph, node: Node) -> Instruction:
    """The instruction for a node."""
    if node.op not in _LOWER:
        raise NotImplementedError(f"[lower] {node.op} has no instruction")
    return replace(_LOWER[node.op](graph, node), when=node.when)
