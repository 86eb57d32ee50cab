"""Differentiation: a forward graph with a loss becomes one that also makes the gradients of its parameters.

Each operation has its rule: given the node and the gradient of its output, add the nodes that make the gradients of
those inputs that need one. A gradient is ``d(name)``; a parameter's is of kind ``grad``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gradring.graph.ir import Graph, Node, Value

__all__ = ["NEEDS_INPUT", "differentiate", "gradient_name", "with_loss"]

# Activations whose derivative reads their input; the others' reads their output.
NEEDS_INPUT = frozenset({"gelu", "silu"})


def gradient_name(name: str) -> str:
    return f"d({name})"


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.wanted = _depends_on_parameters(graph)
        self.ready: dict[str, str] = {}  # value -> its gradient so far

    def value(self, name: str, shape: tuple[int, ...], kind: str = "temp", dtype: str = "real") -> str:
        number, unique = 2, name
        while unique in self.graph.values:
            unique, number = f"{name}~{number}", number + 1
        self.graph = self.graph.with_value(Value(unique, shape, kind, dtype))
        return unique

    def node(self, op: str, inputs: Mapping[str, str], outputs: Mapping[str, str], **attributes: Any) -> None:
        self.graph = self.graph.with_node(Node(op, inputs, outputs, attributes))

    def contribute(self, target: str, op: str, role: str, inputs: Mapping[str, str], **attributes: Any) -> None:
        """Make a gradient of ``target`` by ``op`` and add it to what is there."""
        if target not in self.wanted:
            return
        value = self.graph.values[target]
        kind = "grad" if value.kind == "param" else "temp"
        earlier = self.ready.get(target)
        if earlier is None:
            name = self.value(gradient_name(target), value.shape, kind)
            self.node(op, inputs, {role: name}, **attributes)
            self.ready[target] = name
            return
        more = self.value(gradient_name(target), value.shape)
        self.node(op, inputs, {role: more}, **attributes)
        total = earlier if kind == "grad" else self.value(gradient_name(target), value.shape)
        self.node("add", {"a": earlier, "b": more}, {"y": total})
        self.ready[target] = total

    def pass_on(self, target: str, gradient: str) -> None:
        """``gradient`` itself is a gradient of ``target``."""
        if target not in self.wanted:
            return
        earlier = self.ready.get(target)
        if earlier is None:
            self.ready[target] = gradient
            return
        total = self.value(gradient_name(target), self.graph.values[target].shape)
        self.node("add", {"a": earlier, "b": gradient}, {"y": total})
        self.ready[target] = total

    def view(self, gradient: str, shape: tuple[int, ...]) -> str:
        number, name = 2, f"{gradient}.view"
        while name in self.graph.values:
            name, number = f"{gradient}.view~{number}", number + 1
        self.graph = self.graph.with_value(Value(name, shape, within=gradient))
        return name


def _depends_on_parameters(graph: Graph) -> set[str]:
    """Values whose gradient somebody needs: what parameters flow into, and the parameters."""
    wanted = {name for name, value in graph.values.items() if value.kind == "param"}
    for node in graph.nodes:
        if any(name in wanted or graph.root(name) in wanted for name in node.inputs.values()):
            wanted.update(node.outputs.values())
    wanted.update(name for name in graph.values if graph.root(name) in wanted)
    return wanted


def _linear(b: _Builder, node: Node, dy: str) -> None:
    x, w = node.inputs["x"], node.inputs["w"]
    activation = node.attributes.get("activation")
    if activation is not None:
        source = node.outputs["pre" if activation in NEEDS_INPUT else "y"]
        before = b.value(gradient_name(node.outputs["y"] + ".pre"), b.graph.values[dy].shape)
        b.node("activation_vjp", {"dy": dy, "source": source}, {"dx": before}, activation=activation)
        dy = before
    # The bias first: its sums belong to whatever makes dy. Then the input's gradient, which the next layer waits for.
    if "b" in node.inputs:
        b.contribute(node.inputs["b"], "column_sums", "y", {"x": dy})
    b.contribute(x, "linear_dx", "dx", {"dy": dy, "w": w})
    b.contribute(w, "linear_dw", "dw", {"x": x, "dy": dy})


def _activation(b: _Builder, node: Node, dy: str) -> None:
    kind = node.attributes["activation"]
    source = node.inputs["x"] if kind in NEEDS_INPUT else node.outputs["y"]
    b.contribute(node.inputs["x"], "activation_vjp", "dx", {"dy": dy, "source": source}, activation=kind)


def _dropout(b: _Builder, node: Node, dy: str) -> None:
    # The mask is drawn again from the same key, which is cheaper than to keep it.
    b.contribute(node.inputs["x"], "dropout", "y", {"x": dy}, **node.attributes)


def _add(b: _Builder, node: Node, dy: str) -> None:
    b.pass_on(node.inputs["a"], dy)
    b.pass_on(node.inputs["b"], dy)


def _function(b: _Builder, node: Node, dy: str) -> None:
    inputs = {"dy": dy, "x": node.inputs["x"], "y": node.outputs["y"]}
    b.contribute(node.inputs["x"], "function_vjp", "dx", inputs, **node.attributes)


RULES: dict[str, Callable[[_Builder, Node, str], None]] = {
    "linear": _linear,
    "activation": _activation,
    "dropout": _dropout,
    "add": _add,
    "function": _function,
}


def with_loss(graph: Graph, output: str, loss: str, *, gradient: bool, sums: bool = False) -> Graph:
    """Add the target input, the loss, if asked its gradient by the output, and the verdict on the step.

    ``sums`` leaves the gradient undivided by the batch's size, for batches whose gradients are added up.
    """
    shape = graph.values[output].shape
    rows = shape[0]
    classes = loss == "cross_entropy"
    if classes and len(shape) != 2:
        raise ValueError(f"[cross_entropy] the model's output is {shape}: must be (batch, classes)")
    target = (
        Value("target", (rows,), "input", "int64", offset=1) if classes else Value("target", shape, "input", offset=1)
    )
    # What the loss writes about the batch: the sum of its losses, how many are right, the first bad label.
    graph = graph.with_value(target).with_value(Value("totals", (3,), dtype="int64"))
    outputs = {"totals": "totals"}
    if gradient:
        graph = graph.with_value(Value(gradient_name(output), shape))
        outputs["dx"] = gradient_name(output)
    graph = graph.with_node(Node(loss, {"x": output, "target": "target"}, outputs, {"sums": sums}))
    return graph.with_node(Node("verdict", {"totals": "totals"}, {}, {"rows": rows}))


def differentiate(graph: Graph, output: str) -> Graph:
    """Add the backward pass. The graph must come from ``with_loss(..., gradient=True)``."""
    b = _Builder(graph)
    forward = [node for node in graph.nodes if "totals" not in node.outputs and node.op != "verdict"]
    b.ready[output] = gradient_name(output)
    views: dict[str, list[str]] = {}
    for name, value in graph.values.items():
        if value.within is not None:
            views.setdefault(value.within, []).append(name)

    def settle(name: str) -> str | None:
        """The gradient of a value, what its views received included."""
        for view in views.get(name, []):
            gradient = settle(view)
            if gradient is not None:
                b.pass_on(name, b.view(gradient, b.graph.values[name].shape))
                del b.ready[view]
        return b.ready.get(name)

    for node in reversed(forward):
        dy = settle(node.outputs["y"])
        if dy is None or not any(name in b.wanted for name in node.inputs.values()):
            continue
        if node.op not in RULES:
            raise NotImplementedError(f"[differentiate] {node.op} has no rule")
        RULES[node.op](b, node, dy)
    return b.graph
