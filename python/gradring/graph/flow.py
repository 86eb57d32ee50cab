"""The flow of data through a graph: who has written what, in each micro-batch of an update."""

from __future__ import annotations

from collections.abc import Iterator

from gradring.graph.schema import fail, schema_of
from gradring.ir import GIVEN, Graph, Node

__all__ = ["check_flow", "moments_of"]

# The kinds of micro-batch: for each, the values of ``when`` that run in it.
_MOMENTS = (
    ("always", "first", "last"),
    ("always", "first"),
    ("always", "later"),
    ("always", "later", "last"),
)
_ROUTES = (("always", "first", "last", "bounded"), ("always", "first", "last", "unbounded"))


class _Memory:
    """The contents of each range of each root: the number of the last node that wrote it, or why it may not be read."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.pieces: dict[str, list[tuple[int, int, str]]] = {}  # root -> (begin, end, the value written there)
        self.consumed: dict[str, int] = {}  # root -> the last node of the update phase that read it

    def holds(self, name: str) -> Iterator[tuple[int, int, str | None]]:
        """The pieces of a value's range, in order, with the value that was last written there (None: nothing)."""
        root, begin, end = self.graph.place(name)
        at = begin
        for first, past, what in sorted(self.pieces.get(root, [])):
            if past <= at or first >= end:
                continue
            if first > at:
                yield at, first, None
            yield max(first, at), min(past, end), what
            at = min(past, end)
        if at < end:
            yield at, end, None

    def write(self, name: str, what: str) -> None:
        """Record that a value's range now holds ``what``."""
        root, begin, end = self.graph.place(name)
        kept: list[tuple[int, int, str]] = []
        for first, past, old in self.pieces.get(root, []):
            if first < begin:
                kept.append((first, min(past, begin), old))
            if past > end:
                kept.append((max(first, end), past, old))
        if begin < end:
            kept.append((begin, end, what))
        self.pieces[root] = kept


def moments_of(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """The kinds of micro-batch, or the routes, that the graph tells apart: each by the values of ``when`` that run."""
    if any(node.when in ("bounded", "unbounded") for node in graph.nodes):
        return _ROUTES
    return _MOMENTS if any(node.when in ("first", "later") for node in graph.nodes) else _MOMENTS[:1]


def check_flow(graph: Graph) -> None:
    """Raise ``ValueError`` if a node reads a value that is not written yet, or that another node has overwritten."""
    for moment in moments_of(graph):
        _check_moment(graph, moment)


def _check_moment(graph: Graph, moment: tuple[str, ...]) -> None:
    memory = _Memory(graph)
    for value in graph.values.values():
        if value.within is None and (
            value.kind in ("input", "param", "buffer", "state", "const")
            or (value.kind == "step" and value.name.removeprefix("step.") in GIVEN)
        ):
            memory.write(value.name, "")
        if "later" in moment and value.kind == "grad" and value.within is None:
            memory.write(value.name, "earlier")  # the sums of earlier micro-batches: to be added to, not yet to be read
    for number, node in enumerate(graph.nodes):
        if node.when not in moment:
            continue
        _read(graph, memory, number, node)
        _write(graph, memory, number, node)


def _read(graph: Graph, memory: _Memory, number: int, node: Node) -> None:
    padding = _padding(graph)
    for role, name in node.inputs.items():
        value = graph.values[name]
        for begin, end, what in memory.holds(name):
            label = f"{role}, {name!r}"
            if what is None:
                if value.kind == "grad" and _inside(padding, begin, end):
                    continue
                raise fail(
                    number,
                    node,
                    label,
                    "is read before it is written",
                    "a node before this one that writes it",
                    "none" if value.size <= 1 else f"none for elements {begin} to {end}",
                )
            if what.startswith("undefined"):
                raise fail(number, node, label, "is read", "a defined value", f"what {what[10:]} left behind")
            if what == "earlier":
                if role in node.updates or _inside(padding, begin, end):
                    continue
                raise fail(number, node, label, "is read", "the sum with this micro-batch", "the sum of earlier ones")
            if what not in ("", name) and not _same_contents(graph, what, name):
                raise fail(
                    number, node, label, "is read after it was overwritten", f"the contents of {name!r}", repr(what)
                )
            if what == "" and value.kind == "temp":
                raise fail(number, node, label, "is read", "a value of this step", "older memory")


def _write(graph: Graph, memory: _Memory, number: int, node: Node) -> None:
    schema = schema_of(node.op)
    assert schema is not None
    names = list(node.outputs.values())
    for role, name in node.outputs.items():
        label = f"{role}, {name!r}"
        root = graph.root(name)
        if any(graph.root(other) == root for other in node.inputs.values()):
            overlapping = any(_overlap(graph, name, other) for other in node.inputs.values())
            if overlapping:
                raise fail(number, node, label, "an output lies on an input", "memory of its own", "the same memory")
        if sum(_overlap(graph, name, other) for other in names) > 1:
            raise fail(number, node, label, "two outputs share memory", "memory of its own", "the same memory")
        for begin, end, what in memory.holds(name):
            if graph.values[name].kind == "buffer":  # it has contents, which the node replaces
                break
            if what is not None and what != "earlier" and end > begin:
                raise fail(number, node, label, "is written twice", "one node that writes it", "two")
        made = f"updated {name}" if graph.values[name].kind == "buffer" else name
        memory.write(name, f"undefined {node.op}" if schema.operands[role].undefined else made)
    for role in node.updates:
        name = node.inputs[role]
        if graph.values[name].kind == "grad":
            reader = memory.consumed.get(graph.root(name))
            if reader is not None:
                label = f"{role}, {name!r}"
                raise fail(number, node, label, "is changed too late", f"a place before node {reader}", "one behind it")
        memory.write(name, f"updated {name}" if graph.values[name].kind in ("param", "buffer", "state") else name)
    if node.phase == "update":
        for role, name in node.inputs.items():
            if role not in node.updates:
                memory.consumed[graph.root(name)] = number


def _overlap(graph: Graph, a: str, b: str) -> bool:
    (ra, ba, ea), (rb, bb, eb) = graph.place(a), graph.place(b)
    return ra == rb and ba < eb and bb < ea


def _same_contents(graph: Graph, written: str, name: str) -> bool:
    """Whether a read of ``name``, after ``written`` was written, gets the same contents, because one is a view of the
    other, or a part of it."""
    if written.startswith("updated ") or written not in graph.values:
        return False
    if graph.values[name].kind == "grad":  # the root of gradients is read as a whole, after its views were written
        return True
    return graph.place(written) == graph.place(name) or _inside_of(graph, name, written) or _inside_of(graph, written, name)


def _inside_of(graph: Graph, part: str, whole: str) -> bool:
    """Whether a value is a view of another one, or of a view of it: each is then read after the other was written."""
    within: str | None = part
    while within is not None and within != whole:
        within = graph.values[within].within
    return within == whole


def _padding(graph: Graph) -> list[tuple[int, int]]:
    """The parts of the gradients' root that no parameter's gradient covers: they always stay zero."""
    if "gradients" not in graph.values:
        return []
    gaps, at = [], 0
    for view in graph.views("gradients"):
        _, begin, end = graph.place(view.name)
        if begin > at:
            gaps.append((at, begin))
        at = max(at, end)
    gaps.append((at, graph.values["gradients"].size))
    return gaps


def _inside(gaps: list[tuple[int, int]], begin: int, end: int) -> bool:
    return any(first <= begin and end <= past for first, past in gaps)
