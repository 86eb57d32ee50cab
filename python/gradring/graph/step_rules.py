"""Rules that the graph of a whole training step must keep, beside those of the flow of data."""

from __future__ import annotations

from gradring.graph.deferred import MOVED
from gradring.graph.schema import fail
from gradring.ir import Graph, Node, Value
from gradring.ir.layout import GRAIN, padded

__all__ = ["check_step_graph"]


def check_step_graph(graph: Graph) -> None:
    """Raise ``ValueError`` unless the step updates every trainable range, with the gradients that belong to it."""
    _check_layout(graph)
    _check_updates(graph)
    _check_buffers(graph)


def _check_layout(graph: Graph) -> None:
    """Check that parameters lie one after another, and that gradients lie in their root in the same order."""
    parameters = graph.views("parameters")
    at = 0
    for value in parameters:
        begin = graph.place(value.name)[1]
        if begin != at:
            raise ValueError(
                f"[graph] value {value.name!r}: offset: expected {at}, where the one before ends, got {begin}"
            )
        at = begin + padded(value.size)
    if max(at, GRAIN) != graph.values["parameters"].size:
        raise ValueError(f"[graph] value 'parameters': size: expected {at}, got {graph.values['parameters'].size}")
    names = {f"d({value.name})": value for value in parameters}
    after = 0  # the end of the gradient before; frozen parameters between the two have no gradient
    for value in graph.views("gradients") if "gradients" in graph.values else []:
        of, begin = names.get(value.name), graph.place(value.name)[1]
        if of is None or of.shape != value.shape or begin not in (after, graph.place(of.name)[1]):
            raise ValueError(
                f"[graph] value {value.name!r}: place: expected that of its parameter, got elements "
                f"{graph.place(value.name)[1:]} of 'gradients'"
            )
        after = begin + padded(value.size)


def _check_updates(graph: Graph) -> None:
    """Check that each trainable range is updated once on each route, with its own gradient and state."""
    routes = {node.when for node in graph.nodes if node.phase == "update"}
    expected = {"bounded", "unbounded"} if routes & {"bounded", "unbounded"} else {"last"}
    for number, node in enumerate(graph.nodes):
        if node.phase == "update" and node.when not in expected and not _changes_buffers(graph, node):
            raise fail(number, node, "-", "when", f"one of {sorted(expected)}", node.when)
    for route in sorted(expected):
        _check_route(graph, route)


def _check_complete(graph: Graph, number: int, node: Node) -> None:
    """Check that the gradient that an update reads is complete: no later node writes a part of it."""
    place = graph.place(node.inputs["gradient"])
    last = graph.last_writer(*place)
    writers = [at for at, other in enumerate(graph.nodes) if other is last]
    if not writers and not _holds_views(graph, *place):
        return  # nothing is trained, so no gradient is missing
    if not writers:
        raise fail(number, node, "gradient", "is read before it is written", "a node that writes it", "none")
    if writers[-1] >= number:
        raise fail(number, node, "gradient", "is not complete", f"an update behind node {writers[-1]}", "one before it")


def _holds_views(graph: Graph, root: str, begin: int, end: int) -> bool:
    places = [graph.place(value.name) for value in graph.views(root)]
    return any(first < end and begin < last for _, first, last in places)


def _check_route(graph: Graph, route: str) -> None:
    covered: list[tuple[int, int]] = []
    moved = {graph.place(v.name)[1]: graph.place(f"d({v.name})")[1] for v in _trainable(graph)}
    for number, node in enumerate(graph.nodes):
        if "param" not in node.updates or node.when != route:
            continue
        root, begin, end = graph.place(node.inputs["param"])
        if root != "parameters":
            raise fail(number, node, "param", "root", "parameters", root)
        covered.append((begin, end))
        if "gradient" in node.inputs:
            _check_complete(graph, number, node)
        for role, name in (*node.inputs.items(), *node.outputs.items()):
            value = graph.values[name]
            if role != "param" and value.kind in ("grad", "state"):
                where = graph.place(name)
                wanted = "gradients" if value.kind == "grad" else f"state.{role}"
                at = moved.get(begin, begin)
                if where != (wanted, at, at + end - begin):
                    expected = f"elements {at} to {at + end - begin} of {wanted!r}"
                    raise fail(number, node, role, "place", expected, f"{where[1]} to {where[2]} of {where[0]!r}")
            elif role in ("gradient", "dw", *node.updates) and role != "param":
                raise fail(number, node, role, "kind", "a gradient or a state", value.kind)
    for value in _trainable(graph):
        _, begin, end = graph.place(value.name)
        times = sum(first <= begin and end <= past for first, past in covered)
        touched = sum(first < end and begin < past for first, past in covered)
        if (times, touched) != (1, 1) and value.size:
            raise ValueError(
                f"[graph] parameter {value.name!r}: updates: expected exactly one of the whole, got {touched}"
            )


def _changes_buffers(graph: Graph, node: Node) -> bool:
    """Whether a node changes buffers, or the copies of them that the micro-batches of a group move."""
    roots = (graph.values[graph.root(name)] for _, name in node.written())
    return any(root.kind == "buffer" or root.name == MOVED for root in roots)


def _check_buffers(graph: Graph) -> None:
    """Check that each buffer changes once, after the last check that can stop the step: in each micro-batch or, where copies
    of the buffers wait for the check of a group, each copy in each micro-batch, and the buffer in the last one."""
    changed: dict[str, list[tuple[str, int, int]]] = {when: [] for when in ("first", "always", "last")}
    waits = MOVED in graph.values
    for number, node in enumerate(graph.nodes):
        if node.effects and any(changed.values()):
            raise fail(number, node, "-", "effects", "none behind the update of a buffer", node.effects)
        if not _changes_buffers(graph, node):
            continue
        when = "always" if node.updates else "first" if waits and _copies_to(graph, node, MOVED) else "last"
        if (node.phase, node.when) != ("update", when) or (when == "last" and not waits):
            raise fail(number, node, "-", "phase and when", f"('update', {when!r})", f"({node.phase!r}, {node.when!r})")
        for role, name in node.written():
            root, begin, end = graph.place(name)
            if root != (MOVED if waits and when != "last" else "buffers"):
                raise fail(number, node, role, "root", "that of what changes in this micro-batch", root)
            if any(b < end and begin < e for _, b, e in changed[when]):
                raise fail(number, node, role, "updates", "one of each buffer", "two")
            changed[when].append((root, begin, end))
    places = sorted(graph.place(value.name)[1:] for value in graph.views("buffers")) if "buffers" in graph.values else []
    for when, found in changed.items():
        expected = places if waits or when == "always" else []
        if sorted(place[1:] for place in found) != expected:
            raise ValueError(f"[graph] buffers: updates: expected one each of elements {expected}, got {sorted(found)}")


def _copies_to(graph: Graph, node: Node, root: str) -> bool:
    return all(graph.root(name) == root for name in node.outputs.values())


def _trainable(graph: Graph) -> list[Value]:
    return [value for value in graph.views("parameters") if f"d({value.name})" in graph.values]
