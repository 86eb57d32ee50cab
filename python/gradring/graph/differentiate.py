"""Differentiation: a forward graph with a loss becomes one that also makes the gradients of its parameters.

Each operation has a rule: from a node and the gradient of its output, it adds the nodes that make the gradients of
those inputs that need one. A gradient is called ``d(name)``. A parameter's gradient is a view of the root
``gradients``, where it lies as the parameter does in ``parameters``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gradring.graph.schema import Schema, forward_schemas, schema_of
from gradring.ir import Graph, Layout, Node, Value
from gradring.ops._declare import DECLARED, attributes_with_defaults

__all__ = ["differentiate", "gradient_name", "layer_ops", "with_loss"]

_LARGEST = {"float32": 3.4028234e38, "float64": 1.7976931348623157e308}


def gradient_name(name: str) -> str:
    """The name of the gradient of a value."""
    return f"d({name})"


class _Builder:
    def __init__(self, graph: Graph, trained: Layout | None = None) -> None:
        self.graph = graph
        self.trained = trained
        self.wanted = _depends_on_parameters(graph, trained)
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
            shape = self.graph.values[value.within].shape if self.trained is None else (self.trained.elements,)
            self.graph = self.graph.with_value(Value("gradients", shape, "grad", value.dtype))
        offset = value.offset if self.trained is None else self.trained.offsets[target]
        view = Value(name, value.shape, "grad", value.dtype, within="gradients", offset=offset)
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
        if effects:  # the call's answer decides whether the step continues
            answer = self.graph.fresh(f"{made}.answer")
            self.graph = self.graph.with_value(Value(answer, (1,), dtype="int64"))
            outputs["answer"] = answer
        self.node(op, inputs, outputs, effects=effects, **attributes)
        self.join(target, made)

    def contribute_all(self, targets: Mapping[str, str], op: str, inputs: Mapping[str, str], **attributes: Any) -> None:
        """Make gradients of several values, by their results' names, with one node, without those that are not needed."""
        wanted = {role: target for role, target in targets.items() if target in self.wanted}
        if not wanted:
            return
        made = {role: self.gradient_of(target) for role, target in wanted.items()}
        self.node(op, inputs, made, **attributes)
        for role, target in wanted.items():
            self.join(target, made[role])

    def pass_on(self, target: str, gradient: str) -> None:
        """Use ``gradient`` itself as a gradient of ``target``."""
        if target not in self.wanted:
            return
        if self.graph.values[target].kind == "param" and target not in self.ready:
            made = self.gradient_of(target)
            self.node("copy", {"x": gradient}, {"y": made})
            gradient = made
        self.join(target, gradient)

    def join(self, target: str, gradient: str) -> None:
        """Add a gradient of ``target`` to the sum so far, for a parameter in place, because its place is fixed."""
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


def _depends_on_parameters(graph: Graph, trained: Layout | None) -> set[str]:
    """Values whose gradient is needed: the trained parameters, and all values that depend on them."""
    wanted = {
        name
        for name, value in graph.values.items()
        if value.kind == "param" and (trained is None or value.within is None or name in trained.shapes)
    }
    wanted.discard("parameters")

    def inside(name: str | None) -> bool:
        while name is not None and name not in wanted:
            name = graph.values[name].within
        return name is not None

    for node in graph.nodes:
        if any(map(inside, node.inputs.values())):
            wanted.update(node.outputs.values())
    wanted.update([name for name in graph.values if inside(name)])
    return wanted


def with_loss(
    graph: Graph,
    output: str,
    loss: Any,
    *,
    gradient: bool,
    sums: bool = False,
    target: tuple[tuple[int, ...], str] | None = None,
    weight: int | None = None,
) -> Graph:
    """Add the target input, the loss, its gradient with respect to the output if asked for, and the step's check.

    ``loss`` is one of ``gr.losses``. ``sums`` leaves the gradient undivided by the batch's size, for
    batches whose gradients are added up. ``target`` is the shape of a row of the targets and their dtype, where a loss takes
    several kinds. ``weight`` is the number of the batch's field that has the samples' weights.
    """
    value = graph.values[output]
    shape = value.shape
    rows = shape[0]
    loss = loss.for_outputs(shape)
    kind, options, constants = loss.native()
    _require_no_activation(graph, output, loss)
    taken = {weight} | {
        value.offset for value in graph.values.values() if value.kind == "input" and value.within is None
    }
    slot = next(number for number in range(len(taken) + 2) if number not in taken)  # the first field that no input uses
    schema = schema_of(kind)
    assert schema is not None
    wanted, dtype = loss.target(shape, value.dtype, target)
    goal = Value("target", wanted, "input", dtype, offset=slot)
    # The loss writes these totals of a batch: the sum of its losses, how many are right, the first bad label, the sum of
    # the weights, the first bad weight.
    graph = graph.with_value(goal).with_value(Value("totals", (5,), dtype="int64"))
    inputs = {"x": output, "target": "target"}
    if weight is not None:
        graph = graph.with_value(Value("sample_weight", (rows,), "input", value.dtype, offset=weight))
        inputs["sample_weight"] = "sample_weight"
    for role, data in constants.items():
        if max(data) > _LARGEST[value.dtype]:
            raise ValueError(
                f"[{kind}] {role}: {max(data):g} is beyond the range of {value.dtype}: give smaller numbers"
            )
        graph = graph.with_value(Value(role, (len(data),), "const", value.dtype, data=data))
        inputs[role] = role
    weighted = weight is not None or loss.divides_by_class_weights(dtype)
    outputs = {"totals": "totals"}
    if gradient:
        graph = graph.with_value(Value(gradient_name(output), shape, dtype=value.dtype))
        outputs["dx"] = gradient_name(output)
    for role in schema.outputs:
        if role not in outputs and not schema.operands[role].optional:  # other results that a function must write
            made = Value(role, (rows,), dtype=value.dtype) if role != "answer" else Value(role, (1,), dtype="int64")
            outputs[role] = graph.fresh(role)
            graph = graph.with_value(replace(made, name=outputs[role]))
    node = Node(
        kind,
        inputs,
        outputs,
        {"reduction": "sample" if sums else "mean", **options},
        effects="call of the loss" if schema.effects else "",
        phase="loss",
        origin=kind,
    )
    check: dict[str, Any] = {"rows": rows}
    if weighted:
        check["weighted"] = True
    if loss.summed:
        check["columns"] = loss.terms(shape)
    return _with_check(graph.with_node(node), check, sums)


def _with_check(graph: Graph, attributes: Mapping[str, Any], sums: bool) -> Graph:
    """Add the node that reads the loss and decides whether the step may continue."""
    fields = {"loss_sum": "loss_sum", "weight": "loss_weight", "correct": "correct", "finite": "finite"}
    inputs = {"totals": "totals"}
    graph = graph.with_step(*fields.values())
    if sums:
        graph = graph.with_step("pending_weight", "total_weight")
        inputs["pending"] = "step.pending_weight"
        fields["total_weight"] = "total_weight"
    outputs = {role: f"step.{field}" for role, field in fields.items()}
    node = Node("check_step", inputs, outputs, attributes, effects="check", phase="check", origin="check")
    return graph.with_node(node)


def _require_no_activation(graph: Graph, output: str, loss: Any) -> None:
    """Raise ``ValueError`` if the model ends with an activation that belongs to the loss."""
    root = graph.root(output)
    for node in graph.nodes if loss.spoiled_by else ():
        last = node.attributes.get("activation", node.op)
        if node.attributes.get("logarithm"):  # the softmax of logarithms of shares is the shares
            continue
        if last in loss.spoiled_by and root in map(graph.root, node.outputs.values()):
            raise ValueError(
                f"[{loss.kind}] the model ends with a {last}, and the loss has an activation of its own: leave it out, so that "
                "the model gives logits; trainer.predict_proba gives probabilities"
            )


def _differentiate(b: _Builder, node: Node, dy: str) -> None:
    """Add the derivative that the op's file in ``gradring.ops`` declares."""
    declared = DECLARED.get(node.op)
    if declared is not None and declared.rule is not None:
        return declared.rule(b, node, dy)
    attributes = attributes_with_defaults(node.op, node.attributes)
    derivative = None if declared is None else declared.derivative_of(attributes)
    if derivative is None:
        raise NotImplementedError(f"[differentiate] {node.origin}: {node.op} declares no derivative")
    names = {**node.inputs, **node.outputs}
    shapes = {role: b.graph.values[name].shape for role, name in names.items()}
    other = schema_of(derivative.op)
    known = {} if other is None else other.attributes
    passed = {name: value for name, value in node.attributes.items() if name in known}
    passed |= derivative.attributes(attributes, shapes)
    targets = {role: node.inputs[name] for name, role in derivative.gives.items() if name in node.inputs}
    b.contribute_all(targets, derivative.op, derivative.operands(names, dy), **passed)


def layer_ops() -> dict[str, Schema]:
    """The ops that a layer may add by ``tracer.node``, by name, with their operands and attributes: they compute a ``y`` in the
    forward pass and can be differentiated. An operand that is ``optional`` may be left out.

    >>> [*layer_ops()]
    ['activation', 'add', 'batch_norm', 'batch_norm_inference', 'cast', 'dropout', 'embedding', 'layer_norm', 'linear', \
'rms_norm', 'softmax']
    >>> layer_ops()["layer_norm"].inputs, [*layer_ops()["layer_norm"].attributes]
    (('x', 'weight', 'bias'), ['eps'])
    """
    return {
        name: schema
        for name, schema in forward_schemas().items()
        if (declared := DECLARED.get(name)) is not None
        and (declared.rule is not None or declared.derivative is not None)
        and not any(attribute["type"] == "resource" for attribute in schema.attributes.values())
    }


def differentiate(graph: Graph, output: str, trained: Layout | None = None) -> Graph:
    """Add the backward pass. The graph must come from ``with_loss(..., gradient=True)``.

    ``trained`` says which parameters get gradients, and where these lie; without it all parameters do, in their
    own layout. Nothing is computed that no gradient needs.
    """
    b = _Builder(graph, trained)
    b.ready[output] = gradient_name(output)
    views: dict[str, list[str]] = {}
    for name, value in graph.values.items():
        if value.within is not None and value.kind != "param":
            views.setdefault(value.within, []).append(name)

    def settle(name: str) -> str | None:
        """The gradient of a value, including the gradients of its views."""
        for view in views.get(name, []):
            gradient = settle(view)
            if gradient is not None:
                b.pass_on(name, b.view(gradient, b.graph.values[name].shape))
                del b.ready[view]
        return b.ready.get(name)

    for node in reversed([node for node in graph.nodes if node.phase == "forward" and "y" in node.outputs]):
        dy = settle(node.outputs["y"])
        if dy is None or not any(name in b.wanted for name in node.inputs.values()):
            continue
        b.origin = node.origin
        _differentiate(b, node, dy)
    return b.graph
