"""Asynchronous updates: the step of one process becomes that of one of several workers, which share the parameters and do not
wait for each other.

The step of a worker begins with nodes that read the shared parameters into the worker's own, its snapshot. Everything up to the
gradients stays as it is. Its updates then change the shared parameters: under a lock, the optimizer's own node runs between a
node that takes the lock and reads, and one that writes and gives the lock back; without locks, one node does plain SGD.

A parameter of which a step reads only the rows that ids name, such as the table of an embedding, is read and pushed by these
rows alone, if the rows that no id names do not change: with plain SGD and without weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from gradring.graph.differentiate import gradient_name
from gradring.graph.fuse_update import updates_of
from gradring.graph.schema import schema_of
from gradring.ir import Graph, Node, Value
from gradring.ir.layout import padded

__all__ = ["STRIPE", "Worker", "asynchronous", "check_worker", "row_ids"]

STRIPE = 1 << 14
"""The elements that one lock guards (csrc/ops/shared_update/shared_parameters.h)."""

_SGD = ("clip", "weight", "lr", "finite")


@dataclass(frozen=True)
class Worker:
    """The place of a worker among all. As an attribute of a node it represents the worker's ``view`` of the shared parameters,
    a native object that graphs and plans do not inspect."""

    number: int
    size: int
    view: Any = field(default=None, compare=False, repr=False)

    def callback(self, op: str, shapes: Any, dtypes: Any) -> Any:
        """The native object for a program's table of resources."""
        return self.view


def asynchronous(graph: Graph, worker: Worker, way: str) -> Graph:
    """Make the step of one worker from a whole step with separate updates. ``way`` is ``"locked"``, ``"atomic"`` or
    ``"hogwild"``; the last two take plain SGD."""
    updates = updates_of(graph)
    rows = row_ids(graph) if all(_keeps_other_rows(node) for node in updates) else {}
    made = _Step(graph, worker, way)
    reads = list(made.reads(rows))
    kept = [node for node in graph.nodes if node not in updates]
    pushes = [node for update in updates for node in made.pushes(update, rows)]
    nodes = (*reads, *kept, *pushes)
    effects = tuple(node.effects for node in nodes if node.effects)
    return replace(made.graph, nodes=nodes, effects=effects, promise=None, mode="")


def row_ids(graph: Graph) -> dict[str, str]:
    """Find the parameter matrices of which the step reads only single rows. Map each to the value with the rows' numbers."""
    found: dict[str, str] = {}
    for value in graph.views("parameters"):
        readers = [
            node for node in graph.nodes if node.phase != "update" and value.name in node.inputs.values()
        ]  # other nodes read the whole of it
        if len(readers) != 1:
            continue
        (node,) = readers
        schema = schema_of(node.op)
        limit = schema.limit if schema is not None else None
        if limit is None or limit.axis != 0 or node.inputs.get(limit.below) != value.name:
            continue
        ids = node.inputs[limit.operand]
        gradient = gradient_name(value.name)
        makers = [other for other in graph.nodes if gradient in other.outputs.values()]
        if len(value.shape) == 2 and len(makers) == 1 and ids in makers[0].inputs.values():
            found[value.name] = ids
    return found


def _plain(node: Node) -> bool:
    """Whether an update depends on the parameter and its gradient alone, so that the push of plain SGD can make it."""
    return node.updates == ("param",)


def _keeps_other_rows(node: Node) -> bool:
    return _plain(node) and not node.attributes.get("weight_decay", 0.0)


class _Step:
    """Makes the nodes by which a worker reads and updates the shared parameters."""

    def __init__(self, graph: Graph, worker: Worker, way: str) -> None:
        self.graph, self.worker, self.way = graph, worker, way
        self.number = 0

    def node(self, op: str, phase: str, inputs: dict[str, str], begin: int, **more: Any) -> Node:
        """A node over the shared parameters from element ``begin`` on."""
        self.number += 1
        attributes = {"shared": self.worker, "begin": begin, **more}
        when = "last" if phase == "update" else "always"
        effects = f"shared parameters {self.number}"
        return Node(op, inputs, {}, attributes, ("param",), effects, phase, when, "asynchronous")

    def reads(self, rows: dict[str, str]) -> Iterator[Node]:
        """The nodes that make the snapshot."""
        for begin, end, name in self.ranges(0, self.graph.values["parameters"].size, rows):
            if name is None:
                yield self.node("read_shared", "forward", {"param": self.view(begin, end)}, begin)
            else:
                yield self.node("read_shared_rows", "forward", {"ids": rows[name], "param": name}, begin)

    def ranges(self, begin: int, end: int, rows: dict[str, str]) -> Iterator[tuple[int, int, str | None]]:
        """The parts of a range of the parameters: a matrix that is read by rows, with its name, or all between two of them."""
        at = begin
        for value in self.graph.views("parameters"):
            _, first, past = self.graph.place(value.name)
            if value.name not in rows or first < begin or past > end:
                continue
            if first > at:
                yield at, first, None
            yield first, past, value.name
            at = first + padded(value.size)
        if at < end:
            yield at, end, None

    def view(self, begin: int, end: int, root: str = "parameters") -> str:
        """A flat view of a root."""
        of = self.graph.values[root]
        name = f"{root}[{begin}:{end}]"
        if name not in self.graph.values:
            view = Value(name, (end - begin,), of.kind, of.dtype, within=root, offset=begin, span=True)
            self.graph = self.graph.with_value(view)
        return name

    def pushes(self, node: Node, rows: dict[str, str]) -> Iterator[Node]:
        """The nodes that make one update of the shared parameters. Workers begin at different places, so that they do not
        follow each other from lock to lock."""
        _, begin, end = self.graph.place(node.inputs["param"])
        parts = [part for part in self.ranges(begin, end, rows) if part[2] is not None]
        dense = [part[:2] for part in self.ranges(begin, end, rows) if part[2] is None]
        for first, _, name in parts:
            inputs = {"ids": rows[str(name)], "param": str(name), "gradient": gradient_name(str(name))}
            yield self.sgd("push_sgd_rows", node, inputs, first)
        if self.way != "locked":
            for first, past in dense:
                inputs = {"param": self.view(first, past), "gradient": self.gradient(node, first, past)}
                yield self.sgd("push_sgd", node, inputs, first)
            return
        blocks = [block for first, past in dense for block in _stripes(first, past)]
        turn = len(blocks) * self.worker.number // self.worker.size
        for first, past in (*blocks[turn:], *blocks[:turn]):
            param = self.view(first, past)
            yield self.node("take_shared", "update", {"param": param}, first)
            views = {role: self.moved(node, role, first, past) for role in ("gradient", *node.updates)}
            yield replace(node, inputs={**node.inputs, **views, "param": param})
            yield self.node("give_shared", "update", {"param": param}, first)

    def sgd(self, op: str, node: Node, inputs: dict[str, str], begin: int) -> Node:
        """A node that pushes plain SGD, with the numbers of the step that the optimizer's own node reads."""
        step = {role: node.inputs[role] for role in _SGD if role in node.inputs}
        kept = {name: node.attributes[name] for name in ("weight_decay", "rate") if name in node.attributes}
        return self.node(op, "update", {**inputs, **step}, begin, way=self.way, **kept)

    def moved(self, node: Node, role: str, begin: int, end: int) -> str:
        """The part of an operand that belongs to the elements ``begin`` to ``end`` of the parameters."""
        first = self.graph.place(node.inputs["param"])[1]
        root, at, _ = self.graph.place(node.inputs[role])
        return self.view(at + begin - first, at + end - first, root)

    def gradient(self, node: Node, begin: int, end: int) -> str:
        return self.moved(node, "gradient", begin, end)


def _stripes(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """A range, cut at multiples of ``STRIPE``.

    >>> list(_stripes(16000, 40000))
    [(16000, 16384), (16384, 32768), (32768, 40000)]
    """
    while begin < end:
        past = min(end, (begin // STRIPE + 1) * STRIPE)
        yield begin, past
        begin = past


def check_worker(whole: Graph, step: Graph) -> None:
    """Raise ``ValueError`` unless the worker's step reads every parameter before it uses it, and updates each element that the
    whole step updates once, under its lock or by a push, by its own gradient and with its own state."""
    read = [step.place(node.inputs["param"])[1:] for node in step.nodes if _reads(node)]
    used = [number for number, node in enumerate(step.nodes) if not _reads(node)]
    if any(_reads(node) for node in step.nodes[min(used, default=0) :]):
        raise ValueError("[graph] a node reads the shared parameters after another node has used the snapshot")
    for value in whole.views("parameters"):
        _, begin, end = whole.place(value.name)
        if value.size and not any(first <= begin and end <= past for first, past in read):
            raise ValueError(f"[graph] parameter {value.name!r} is not read from the shared ones")
    done = sorted(_updated(step))
    expected = _joined(whole.place(node.inputs["param"])[1:] for node in updates_of(whole))
    if _joined(done) != expected or any(a[1] > b[0] for a, b in pairwise(done)):
        raise ValueError(f"[graph] the worker updates the elements {done}, the whole step {expected}")


def _reads(node: Node) -> bool:
    return "shared" in node.attributes and node.phase == "forward"


def _holds(step: Graph, node: Node, place: tuple[str, int, int]) -> bool:
    """Whether a node takes the lock of these elements, or gives it back."""
    return "shared" in node.attributes and node.phase == "update" and step.place(node.inputs["param"]) == place


def _updated(step: Graph) -> Iterator[tuple[int, int]]:
    """The ranges of the parameters that a step updates. An update without a push must stand between the
    nodes that take and release its lock."""
    beside_ends = (None, *step.nodes, None)
    for before, node, after in zip(beside_ends, step.nodes, beside_ends[2:], strict=False):
        if node.phase != "update" or "param" not in node.updates or "gradient" not in node.inputs:
            continue
        root, begin, end = step.place(node.inputs["param"])
        gradient_root, at, past = step.place(node.inputs["gradient"])
        if root != "parameters" or gradient_root != "gradients" or past - at != end - begin:
            raise ValueError(f"[graph] {node.op} updates {root} by {gradient_root}, elements {at} to {past}")
        if "shared" in node.attributes:
            if node.attributes["begin"] != begin:
                raise ValueError(f"[graph] {node.op} pushes element {begin} to {node.attributes['begin']}")
        else:
            for beside in (before, after):
                if beside is None or not _holds(step, beside, (root, begin, end)):
                    raise ValueError(f"[graph] {node.op} updates elements {begin} to {end} without their lock")
        yield begin, begin + padded(end - begin)


def _joined(ranges: Any) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        end = begin + padded(end - begin)
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif end > begin:
            joined.append((begin, end))
    return joined
