"""The rules of a legal graph. ``check`` raises a ``ValueError`` that names node, op, operand, what was expected and
found.

- Every name exists, and every view lies inside its root.
- Operands, attributes, shapes and dtypes are those that the schema of each op allows (``schema.py``).
- Phases are in order, so the check of the step precedes every update.
- Effects are those that were promised, in the promised order.
- Nothing is read before it is written, or after it was overwritten, in any micro-batch of an update.
- In the graph of a whole step, each trainable range and its optimizer state are updated exactly once, with the gradient
  that lies at the same place.
- What the graph computes is what was promised when it was built (``meaning.py``).
"""

from __future__ import annotations

from gradring.errors import reason
from gradring.graph.flow import check_flow
from gradring.graph.meaning import check_meaning
from gradring.graph.schema import Schema, fail, forward_schemas, part_of, place_of, refusal, schema_of
from gradring.graph.step_rules import check_step_graph
from gradring.ir import ITEM, PHASES, STEP, WHEN, Graph, Node, Value
from gradring.ir.layout import GRAIN

__all__ = ["check", "check_nodes"]

_KINDS = ("input", "output", "param", "buffer", "grad", "state", "temp", "step", "const")
_DTYPES = tuple(ITEM)


def check(graph: Graph) -> None:
    """Raise ``ValueError`` unless the graph is legal.

    >>> from gradring import losses, nn, optim
    >>> from gradring.graph import train_graph
    >>> graph = train_graph(nn.Linear(4, 3), (5, 4), losses.CrossEntropy(), optimizer=optim.SGD(0.1), clip_norm=1.0)
    >>> check(graph)
    >>> check(graph.with_nodes([*graph.nodes[:-2], graph.nodes[-1], graph.nodes[-2]]))
    Traceback (most recent call last):
    ...
    ValueError: [graph] node 5 (sgd, SGD(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)): operand clip, \
'step.clip': is read before it is written: expected a node before this one that writes it, got none
    """
    check_nodes(graph)
    _check_order(graph)
    _check_effects(graph)
    _check_memory(graph)
    _check_promised(graph)
    check_flow(graph)
    if graph.mode == "train":
        check_step_graph(graph)
    check_meaning(graph)


def check_nodes(graph: Graph) -> None:
    """Raise ``ValueError`` unless each value is sound, and each node's op takes its operands and attributes. Every graph that
    layers have built passes this before it is planned, because a layer may be a user's."""
    for value in graph.values.values():
        _check_value(graph, value)
    for number, node in enumerate(graph.nodes):
        _check_node(graph, number, node)


def _check_value(graph: Graph, value: Value) -> None:
    def wrong(what: str, expected: object, got: object) -> ValueError:
        return ValueError(f"[graph] value {value.name!r}: {what}: expected {expected}, got {got}")

    if graph.values.get(value.name) is not value:
        raise wrong("name", "the name under which the graph has it", "another")
    if value.kind not in _KINDS:
        raise wrong("kind", f"one of {_KINDS}", value.kind)
    if value.dtype not in _DTYPES:
        raise wrong("dtype", f"one of {_DTYPES}", value.dtype)
    if value.kind == "step":
        field = value.name.removeprefix("step.")
        if STEP.get(field) != value.dtype or value.shape:
            raise wrong("field of the step record", f"() of {STEP.get(field)}", f"{value.shape} of {value.dtype}")
    if any(size < 0 for size in value.shape):
        raise wrong("shape", "sizes of at least 0", value.shape)
    if value.offset < 0:
        raise wrong("offset", "at least 0", value.offset)
    if value.within is None:
        return
    seen = {value.name}
    whole = value
    while whole.within is not None:
        if whole.within not in graph.values:
            raise wrong("within", "the name of a value", f"{whole.within!r}, which is none")
        whole = graph.values[whole.within]
        if whole.name in seen:
            raise wrong("within", "a root in the end", f"a circle through {whole.name!r}")
        seen.add(whole.name)
    holder = graph.values[value.within]
    if (value.kind, value.dtype) != (holder.kind, holder.dtype):
        raise wrong(f"a view of {holder.name!r}", f"{holder.kind} of {holder.dtype}", f"{value.kind} of {value.dtype}")
    if value.offset + value.size > holder.size:
        raise wrong(
            f"a view of {holder.name!r}",
            f"at most {holder.size} elements from its beginning",
            f"{value.size} from element {value.offset} on",
        )
    if value.kind in ("param", "buffer", "grad", "state") and value.offset % GRAIN:
        raise wrong("offset", f"a multiple of {GRAIN}: each parameter begins on a cache line", value.offset)


def _forward() -> str:
    return ", ".join(forward_schemas())


def _check_node(graph: Graph, number: int, node: Node) -> None:
    schema = schema_of(node.op)
    if schema is None:
        raise fail(number, node, "-", "no such op", f"an op that programs may use, as {_forward()}", node.op)
    if node.phase not in schema.phases:
        raise fail(number, node, "-", "phase", f"one of {schema.phases}", node.phase)
    if node.when not in WHEN:
        raise fail(number, node, "-", "when", f"one of {WHEN}", node.when)
    if bool(node.effects) != schema.effects:
        raise fail(number, node, "-", "effects", "some" if schema.effects else "none", repr(node.effects))
    wanted = tuple(role for role in schema.updates if role in node.inputs)
    if tuple(node.updates) != wanted:
        raise fail(number, node, "-", "updates", wanted, tuple(node.updates))
    for given, roles in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for role, name in given.items():
            if role not in roles:
                raise fail(number, node, role, "unknown role", f"one of {roles}", role)
            if name not in graph.values:
                raise fail(number, node, role, "no such value", "the name of a value", repr(name))
            _check_kind(graph, number, node, schema, role, name)
        for role in roles:
            if role in given:
                continue
            if not schema.operands[role].optional:
                raise fail(number, node, role, "absent", "a value", "none")
            # Without it, an op would draw the same numbers in every step.
            if schema.operands[role].step == "draw" and "samples" not in given:
                raise fail(number, node, role, "absent", "tracer.draw(), the number of the forward pass", "none")
    for name in node.attributes:
        if name not in schema.attributes:
            raise ValueError(
                f"{place_of(number, node)}: attribute {name!r}: expected one of {tuple(schema.attributes)}"
            )
    refused = refusal(graph, node)
    if refused:
        # Both `refused` and the place begin with the name of the op, so `reason` removes it from one of them.
        raise ValueError(f"{place_of(number, node)}: {reason(ValueError(refused))}")


def _check_kind(graph: Graph, number: int, node: Node, schema: Schema, role: str, name: str) -> None:
    value, field = graph.values[name], schema.operands[role].step
    label = f"{role}, {name!r}"
    if field is not None:
        if name != f"step.{field}" or value.kind != "step":
            raise fail(number, node, label, "field of the step record", f"step.{field}", name)
    elif value.kind == "step":
        raise fail(number, node, label, "kind", "an array", "a field of the step record")
    elif role in node.outputs and value.kind in ("input", "param", "buffer", "state", "const"):
        if value.kind == "buffer" and node.phase == "update" and part_of(node, "copy") is not None:
            return  # it takes over what the micro-batches of a group have made of the buffer
        raise fail(number, node, label, "kind of an output", "temp, grad or output", value.kind)


def _check_order(graph: Graph) -> None:
    latest = 0
    for number, node in enumerate(graph.nodes):
        phase = PHASES.index(node.phase)
        if graph.mode in ("evaluate", "predict") and node.phase in ("backward", "update"):
            raise fail(number, node, "-", "phase", f"none that trains, in the mode {graph.mode!r}", node.phase)
        if phase < latest:
            raise fail(number, node, "-", "phase", f"{PHASES[latest]} or a later one", node.phase)
        latest = phase


def _check_effects(graph: Graph) -> None:
    found = [node.effects for node in graph.nodes if node.effects]
    if found != list(graph.effects):
        raise ValueError(f"[graph] effects: expected {list(graph.effects)}, in this order, got {found}")


def _check_memory(graph: Graph) -> None:
    """Roots share neither memory that outlives the step nor a field of the batch, and an arena has roots of one kind."""
    kinds: dict[str, str] = {}
    taken: dict[str, list[Value]] = {}
    for value in graph.values.values():
        if value.within is not None or value.kind == "step":
            continue
        kind = "param" if value.kind == "buffer" else value.kind
        arena = value.lies_in or kind
        if kinds.setdefault(arena, kind) != kind:
            raise ValueError(
                f"[graph] value {value.name!r}: arena: expected one of kind {kind}, got {arena!r} of {kinds[arena]}"
            )
        for other in taken.get(arena, []) if kind not in ("temp", "const") else ():
            if value.offset < _past(other) and other.offset < _past(value):
                place = "a field of its own" if kind == "input" else "memory of its own"
                raise ValueError(f"[graph] value {value.name!r}: offset: expected {place}, got that of {other.name!r}")
        taken.setdefault(arena, []).append(value)


def _past(root: Value) -> int:
    return root.offset + (1 if root.kind == "input" else root.size)


def _check_promised(graph: Graph) -> None:
    """A rewriting leaves each value in the memory that was promised: gradients, for example, outlast a micro-batch. Memory of
    the step alone may become a part of other such memory. What comes from outside the step, or outlasts it, keeps its dtype."""
    for name, promised in graph.promise.values.items() if graph.promise is not None else ():
        value = graph.values.get(name, promised)
        joined = value.kind == "temp" and value.within is not None
        fields = ["kind", "arena", "data"]
        if promised.kind != "temp":
            fields.append("dtype")
        if promised.within is None and not joined:
            fields.append("offset")
        for field in fields:
            then, now = getattr(promised, field), getattr(value, field)
            if now != then:
                raise ValueError(f"[graph] value {name!r}: {field}: expected {then}, as was promised, got {now}")
