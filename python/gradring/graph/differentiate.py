"""Differentiation: a forward graph with a loss becomes one that also makes the gradients of its parameters.

Each operation has its rule: given the node and the gradient of its output, add the nodes that make the gradients of
those inputs that need one. A gradient is called ``d(name)``. A parameter's gradient is a view of the root
``gradients``, where it lies as the parameter does in ``parameters``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gradring.graph.schema import schema_of
from gradring.ir import Graph, Node, Value

__all__ = ["NEEDS_INPUT", "differentiate", "gradient_name", "with_loss"]

# Activations whose derivative reads their input; the others' reads their output.
NEEDS_INPUT = frozenset({"gelu", "silu"})


def gradient_name(name: str) -> str:
    """What the gradient of a value is called."""
    return f"d({name})"


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.wanted = _depends_on_parameters(graph)
        self.ready: dict[str, str] = {}  # value -> its gradient so far
        self.origin = ""

    def value(self, name: str, shape: tuple[int, ...], dtype: str) -> str:
        unique = self.graph.fresh(name)
        self.graph = self.graph.with_value(Value(unique, shape, dtype=dtype))
        return unique

    def gradient_of(self, target: str) -> str:
        """A value for the gradient of ``target``: a parameter's is a view of the root ``gradients``."""
        value = self.graph.values[target]
        if value.kind != "param" or gradient_name(target) in self.graph.values:
            return self.value(gradient_name(target), value.shape, value.dtype)
        name = gradient_name(target)
        if value.within is None:
            self.graph = self.graph.with_value(Value(name, value.shape, "grad", value.dtype))
            return name
        if "gradients" not in self.graph.values:
            root = self.graph.values[value.within]
            self.graph = self.graph.with_value(Value("gradients", root.shape, "grad", root.dtype))
        view = Value(name, value.shape, "grad", value.dtype, within="gradients", offset=value.offset)
        self.graph = self.graph.with_value(view)
        return name

    def node(
        self,
        op: str,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        *,
        updates: tuple[str, ...] = (),
        effects: str = "",
        **attributes: Any,
    ) -> None:
        node = Node(op, inputs, outputs, attributes, updates, effects, phase="backward", origin=self.origin)
        self.graph = self.graph.with_node(node)

    def contribute(
        self, target: str, op: str, role: str, inputs: Mapping[str, str], *, effects: str = "", **attributes: Any
    ) -> None:
        """Make a gradient of ``target`` by ``op`` and add it to what is there."""
        if target not in self.wanted:
            return
        made = self.gradient_of(target)
        outputs = {role: made}
        if op == "function_vjp":
            answer = self.graph.fresh(f"{made}.answer")
            self.graph = self.graph.with_value(Value(answer, (1,), dtype="int64"))
            outputs["answer"] = answer
        self.node(op, inputs, outputs, effects=effects, **attributes)
        self.join(target, made)

    def pass_on(self, target: str, gradient: str) -> None:
        """``gradient`` itself is a gradient of ``target``."""
        if target not in self.wanted:
            return
        if self.graph.values[target].kind == "param" and target not in self.ready:
            made = self.gradient_of(target)
            self.node("copy", {"x": gradient}, {"y": made})
            gradient = made
        self.join(target, gradient)

    def join(self, target: str, gradient: str) -> None:
        """Add a gradient of ``target`` to what is there: a parameter's in place, as its place is fixed."""
        earlier = self.ready.get(target)
        if earlier is None:
            self.ready[target] = gradient
        elif self.graph.values[target].kind == "param":
            self.node("accumulate", {"sum": earlier, "gradient": gradient}, {}, updates=("sum",))
        else:
            total = self.gradient_of(target)
            self.node("add", {"a": earlier, "b": gradient}, {"y": total})
            self.ready[target] = total

    def view(self, gradient: str, shape: tuple[int, ...]) -> str:
        name, of = self.graph.fresh(f"{gradient}.view"), self.graph.values[gradient]
        self.graph = self.graph.with_value(Value(name, shape, of.kind, of.dtype, within=gradient))
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
        of = b.graph.values[dy]
        before = b.value(gradient_name(node.outputs["y"] + ".pre"), of.shape, of.dtype)
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
    inputs = {"x": dy, "draw": node.inputs["draw"]}
    b.contribute(node.inputs["x"], "dropout", "y", inputs, **node.attributes)


def _add(b: _Builder, node: Node, dy: str) -> None:
    b.pass_on(node.inputs["a"], dy)
    b.pass_on(node.inputs["b"], dy)


def _function(b: _Builder, node: Node, dy: str) -> None:
    inputs = {"dy": dy, "x": node.inputs["x"], "y": node.outputs["y"]}
    effects = f"{node.effects}, backward"
    b.contribute(node.inputs["x"], "function_vjp", "dx", inputs, effects=effects, **node.attributes)


def _by_schema(b: _Builder, node: Node, dy: str) -> None:
    """The rule of an op that has a ``<op>_vjp``, found by names: it takes ``dy``, the op's operands and attributes of the
    same names, and makes ``d<input>`` for each input."""
    schema = schema_of(f"{node.op}_vjp")
    if schema is None:
        raise NotImplementedError(f"[differentiate] {node.origin}: {node.op} has no rule, and no op is {node.op}_vjp")
    known = {**node.inputs, **node.outputs, "dy": dy}
    inputs = {role: known[role] for role in schema.inputs if role in known}
    attributes = {name: value for name, value in node.attributes.items() if name in schema.attributes}
    targets = {role: node.inputs[role[1:]] for role in schema.outputs if role[1:] in node.inputs and role[0] == "d"}
    wanted = {role: target for role, target in targets.items() if target in b.wanted}
    if not wanted:
        return
    made = {role: b.gradient_of(target) for role, target in wanted.items()}
    for role, target in targets.items():
        if role not in made and not schema.operands[role].optional:  # the op makes it, though nobody needs it
            value = b.graph.values[target]
            made[role] = b.value(f"{gradient_name(target)}.unused", value.shape, value.dtype)
    b.node(schema.name, inputs, made, **attributes)
    for role, target in wanted.items():
        b.join(target, made[role])


RULES: dict[str, Callable[[_Builder, Node, str], None]] = {
    "linear": _linear,
    "activation": _activation,
    "dropout": _dropout,
    "add": _add,
    "function": _function,
}


def with_loss(graph: Graph, output: str, loss: str, *, gradient: bool, sums: bool = False) -> Graph:
    """Add the target input, the loss, if asked its gradient by the output, and the check of the step.

    ``sums`` leaves the gradient undivided by the batch's size, for batches whose gradients are added up.
    """
    value = graph.values[output]
    shape = value.shape
    rows = shape[0]
    if loss == "binary_cross_entropy":
        _require_logits(graph, output)
    taken = {value.offset for value in graph.values.values() if value.kind == "input" and value.within is None}
    slot = next(number for number in range(len(taken) + 1) if number not in taken)  # the field that no input is
    classes = loss == "cross_entropy"
    if classes and len(shape) != 2:
        raise ValueError(f"[cross_entropy] the model's output is {shape}: must be (batch, classes)")
    target = (
        Value("target", (rows,), "input", "int64", offset=slot)
        if classes
        else Value("target", shape, "input", value.dtype, offset=slot)
    )
    # What the loss writes about the batch: the sum of its losses, how many are right, the first bad label.
    graph = graph.with_value(target).with_value(Value("totals", (3,), dtype="int64"))
    outputs = {"totals": "totals"}
    if gradient:
        graph = graph.with_value(Value(gradient_name(output), shape, dtype=value.dtype))
        outputs["dx"] = gradient_name(output)
    node = Node(
        loss,
        {"x": output, "target": "target"},
        outputs,
        {"reduction": "sample" if sums else "mean"},
        phase="loss",
        origin=loss,
    )
    return _with_check(graph.with_node(node), rows, sums)


def _with_check(graph: Graph, rows: int, sums: bool) -> Graph:
    """Add the node that looks at the loss and decides whether the step may go on."""
    fields = {"loss_sum": "loss_sum", "weight": "loss_weight", "correct": "correct", "finite": "finite"}
    inputs = {"totals": "totals"}
    graph = graph.with_step(*fields.values())
    if sums:
        graph = graph.with_step("pending_weight", "total_weight")
        inputs["pending"] = "step.pending_weight"
        fields["total_weight"] = "total_weight"
    outputs = {role: f"step.{field}" for role, field in fields.items()}
    node = Node("check_step", inputs, outputs, {"rows": rows}, effects="check", phase="check", origin="check")
    return graph.with_node(node)


def _require_logits(graph: Graph, output: str) -> None:
    """``ValueError`` if a sigmoid comes before the one that is part of the loss."""
    root = graph.root(output)
    for node in graph.nodes:
        if root in map(graph.root, node.outputs.values()) and node.attributes.get("activation") == "sigmoid":
            raise ValueError(
                "[binary_cross_entropy] the model ends with a sigmoid, and the loss has one of its own: leave Sigmoid out, "
                "so that the model gives logits"
            )


def differentiate(graph: Graph, output: str) -> Graph:
    """Add the backward pass. The graph must come from ``with_loss(..., gradient=True)``."""
    b = _Builder(graph)
    b.ready[output] = gradient_name(output)
    views: dict[str, list[str]] = {}
    for name, value in graph.values.items():
        if value.within is not None and value.kind != "param":
            views.setdefault(value.within, []).append(name)

    def settle(name: str) -> str | None:
        """The gradient of a value, what its views received included."""
        for view in views.get(name, []):
            gradient = settle(view)
            if gradient is not None:
                b.pass_on(name, b.view(gradient, b.graph.values[name].shape))
                del b.ready[view]
        return b.ready.get(name)

    for node in reversed([node for node in graph.nodes if node.phase == "forward"]):
        dy = settle(node.outputs["y"])
        if dy is None or not any(name in b.wanted for name in node.inputs.values()):
            continue
        b.origin = node.origin
        RULES.get(node.op, _by_schema)(b, node, dy)
    return b.graph
