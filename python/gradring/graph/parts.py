"""The parts of a batch that one rank computes, one after another: their forward and backward passes in one graph.

A rank has one part, or with shards several. Each part reads its rows of the batch, and writes its gradients to a plane of
its own. All parts use the same parameters, and the same memory for what they need in between, one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradring.ir import Graph, Node, Value
from gradring.ir.layout import GRAIN, padded

__all__ = ["Part", "Ranks", "in_planes", "is_moved", "merged_moments", "parts_of", "tree_of", "with_parts"]


@dataclass(frozen=True)
class Ranks:
    """The place of a rank among all. ``shards`` is the number of parts of a batch, whose gradients are added in a tree; with 0
    there is one part for each rank, and the gradients are added in rank order.

    As an attribute of a node it represents the ``meeting`` of that rank, a native object that graphs and plans do not
    inspect.

    >>> Ranks(1, 2, shards=8).own, Ranks(1, 2).own
    (range(4, 8), range(1, 2))
    """

    rank: int
    size: int
    meeting: Any = field(default=None, compare=False, repr=False)
    shards: int = 0

    def callback(self, op: str, shapes: Any, dtypes: Any) -> Any:
        """The native object for a program's table of resources."""
        return self.meeting

    @property
    def parts(self) -> int:
        """The number of parts of a batch, which is that of the planes."""
        return self.shards or self.size

    @property
    def own(self) -> range:
        """The numbers of this rank's parts."""
        each = self.parts // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def rows(self, whole: int, part: int | None = None) -> tuple[int, int]:
        """The rows of a part, or those of this rank, of a batch of ``whole`` rows: the first one, and that after the last.

        >>> [Ranks(0, 2, shards=4).rows(9, part) for part in range(4)], Ranks(0, 2, shards=4).rows(9)
        ([(0, 2), (2, 4), (4, 6), (6, 9)], (0, 4))
        """
        number, of = (self.rank, self.size) if part is None else (part, self.parts)
        return whole * number // of, whole * (number + 1) // of


@dataclass(frozen=True)
class Part:
    """The training step of one part of a rank's rows, from row ``first`` of these on; without a ``graph`` it has none."""

    graph: Graph | None
    first: int = 0


def parts_of(step: Callable[[int], Graph], ranks: Ranks, rows: int, *, whole: bool = True) -> tuple[Graph, list[Part]]:
    """The step of all rows of a rank, or of one row if it has none, and its parts, of which ``step`` makes the graph of so many
    rows. ``rows`` are those of the whole batch or, if they are not ``whole``, the rank's own, which are one part."""
    begin, end = ranks.rows(rows) if whole else (0, max(rows, 0))
    places = [ranks.rows(rows, number) for number in ranks.own] if whole else [(begin, end)]
    parts = [Part(step(past - first) if past > first else None, first - begin) for first, past in places]
    return step(max(end - begin, 1)), parts


def in_planes(graph: Graph, ranks: Ranks) -> Graph:
    """The graph with its root of gradients as the plane of one part in the arena of all planes, and with the moments of all
    parts, if the model has buffers. ``ranks.rank`` is the number of the part."""
    gradients = graph.values["gradients"]
    planes = Value("planes", (ranks.parts, gradients.size), "grad", gradients.dtype)
    plane = replace(gradients, within="planes", offset=ranks.rank * gradients.size)
    moments = _moments_root(graph, ranks)
    return replace(graph, values={"planes": planes, **moments, **graph.values, "gradients": plane})


def _moments_root(graph: Graph, ranks: Ranks) -> dict[str, Value]:
    """The moments of all parts: for each part its number of rows, and behind it, in the places that the running moments have
    among the buffers, the moments of the batch."""
    buffers = graph.values.get("buffers")
    if buffers is None or not buffers.size:
        return {}
    shape = ranks.parts, GRAIN + padded(buffers.size)
    return {"moments": Value("moments", shape, "grad", buffers.dtype, arena="moments")}


def is_moved(graph: Graph, node: Node) -> bool:
    """Whether the node changes buffers."""
    return any(graph.values[node.inputs[role]].kind == "buffer" for role in node.updates if role in node.inputs)


def with_parts(whole: Graph, ranks: Ranks, parts: Sequence[Part], *, accumulate: bool) -> tuple[Graph, str | None]:
    """The forward and backward passes of all ``parts``, with the lasting values and the inputs of ``whole``. Also returns the
    name of the value that has the sums of the losses of several parts; None: the step record has those of the one part."""
    made = _Parts(whole, ranks, parts)
    kept = [made.add(number, part) for number, part in zip(ranks.own, parts, strict=True)]
    for number, part in zip(ranks.own, parts, strict=True):
        if part.graph is None:
            made.clear(number, "first" if accumulate else "always")
    sums = made.sum_of(kept)
    return made.graph, sums


def merged_moments(graph: Graph) -> list[Node]:
    """The nodes that move the buffers of a whole step towards the moments of all parts together."""
    rows = _rows(graph)
    return [
        Node(
            "merge_moments",
            {"parts": "moments", **{role: node.inputs[role] for role in node.updates}},
            {},
            {
                "mean_at": GRAIN + graph.place(node.inputs["running_mean"])[1],
                "variance_at": GRAIN + graph.place(node.inputs["running_var"])[1],
                "each": node.attributes["rows"] // rows,
                "momentum": node.attributes["momentum"],
            },
            updates=node.updates,
            origin=node.origin,
        )
        for node in graph.nodes
        if is_moved(graph, node)
    ]


_SHARED = ("param", "buffer", "state", "step")
_MOMENTS = {"running_mean": "mean", "running_var": "variance"}


def _rows(graph: Graph) -> int:
    return next(value.shape[0] for value in graph.values.values() if value.kind == "input")


class _Parts:
    """Collects the nodes of all parts."""

    def __init__(self, whole: Graph, ranks: Ranks, parts: Sequence[Part]) -> None:
        self.ranks, self.several = ranks, len(parts) > 1
        if not self.several:
            graph = in_planes(parts[0].graph or whole, Ranks(ranks.own[0], ranks.parts))
        else:
            lasts = {n: v for n, v in whole.values.items() if v.kind in _SHARED}
            inputs = {n: v for n, v in whole.values.items() if v.kind == "input" and v.within is None}
            roots = in_planes(whole, Ranks(ranks.own[0], ranks.parts)).values
            arenas = {name: roots[name] for name in ("planes", "moments") if name in roots}
            graph = replace(whole, values={**arenas, **inputs, **lasts})
        self.graph = replace(graph, nodes=(), effects=())
        self._row = 0

    def add(self, number: int, part: Part) -> str | None:
        """Add the nodes of a part; returns the name of the sums of its losses, if it has rows and is one of several."""
        graph = part.graph
        if graph is None:
            self._count(number, 0)
            return None
        if self.several:
            self._values(graph, number, part.first)
            place = {"first_row": part.first, "rows_before": self._row}
            self._node(Node("begin_part", {}, {}, place, effects=f"part {number}"))
            self._row = part.first
        for node in graph.nodes:
            if node.phase != "update":
                effects = f"{node.effects} of part {number}" if node.effects and self.several else node.effects
                inputs, outputs = (self._renamed(graph, names, number) for names in (node.inputs, node.outputs))
                self.graph = self.graph.with_node(replace(node, inputs=inputs, outputs=outputs, effects=effects))
        self._count(number, _rows(graph))
        for node in graph.nodes:
            if is_moved(graph, node):
                self._moments(number, node, self._renamed(graph, node.inputs, number))
        if not self.several:
            return None
        kept = self.graph.fresh(f"loss sums of part {number}")
        self.graph = self.graph.with_value(Value(kept, (3,), dtype="float64")).with_step(*_LOSSES.values())
        fields = {role: f"step.{name}" for role, name in _LOSSES.items()}
        self._node(Node("keep_losses", fields, {"kept": kept}, phase="backward"))
        return kept

    def clear(self, number: int, when: str) -> None:
        """Add the node that fills the plane of a part without rows with zeros."""
        name = "gradients" if not self.several else f"gradients of part {number}"
        if name not in self.graph.values:
            planes = self.graph.values["planes"]
            elements = planes.shape[1]
            self.graph = self.graph.with_value(
                Value(name, (elements,), "grad", planes.dtype, within="planes", offset=number * elements)
            )
        self._node(Node("clear_plane", {}, {"plane": name}, phase="update", when=when))

    def sum_of(self, names: Sequence[str | None]) -> str | None:
        """Add the sum of these values in a tree, in which a part without rows counts as zero; returns its name."""
        self.graph, name = tree_of(self.graph, names)
        return name

    def _node(self, node: Node) -> None:
        self.graph = self.graph.with_node(replace(node, origin=node.origin or "data_parallel"))

    def _renamed(self, graph: Graph, names: Mapping[str, str], number: int) -> dict[str, str]:
        return {role: self._name(graph.values[name], number) for role, name in names.items()}

    def _name(self, value: Value, number: int) -> str:
        return f"{value.name} of part {number}" if self.several and value.kind not in _SHARED else value.name

    def _values(self, graph: Graph, number: int, first: int) -> None:
        """Add the values of a part, each under a name of its own, unless all parts share it."""
        made = {}
        for value in graph.values.values():
            name = self._name(value, number)
            if value.kind in _SHARED:
                made[name] = value
            elif value.within is not None:
                made[name] = replace(value, name=name, within=self._name(graph.values[value.within], number))
            elif value.kind == "input":
                row = value.size // value.shape[0]
                made[name] = replace(value, name=name, within=value.name, offset=first * row)
            elif value.kind == "grad":
                made[name] = replace(value, name=name, within="planes", offset=number * value.size)
            else:
                made[name] = replace(value, name=name)
        self.graph = replace(self.graph, values={**self.graph.values, **made})

    # Batch statistics

    def _count(self, number: int, rows: int) -> None:
        """Note how many rows a part has, beside its moments."""
        if "moments" not in self.graph.values:
            return
        name = self.graph.fresh(f"rows of part {number}")
        dtype = self.graph.values["moments"].dtype
        self.graph = self.graph.with_value(Value(name, (1,), "const", dtype, data=(float(rows),)))
        self._copy(name, number, 0)

    def _moments(self, number: int, node: Node, inputs: Mapping[str, str]) -> None:
        if not _MOMENTS.keys() == set(node.updates):
            raise ValueError(
                f"[Trainer] {node.origin}: {node.op} changes buffers in a way that parts of a batch cannot do together: train "
                "with replicas=1 and without shards"
            )
        for running, moment in _MOMENTS.items():
            self._copy(inputs[moment], number, GRAIN + self.graph.place(inputs[running])[1])

    def _copy(self, name: str, number: int, at: int) -> None:
        value, moments = self.graph.values[name], self.graph.values["moments"]
        to = self.graph.fresh(f"{name} among the moments")
        view = Value(to, value.shape, "grad", value.dtype, within="moments", offset=number * moments.shape[1] + at)
        self.graph = self.graph.with_value(view)
        self._node(Node("copy", {"x": name}, {"y": to}, phase="backward"))


_LOSSES = {"loss_sum": "loss_sum", "weight": "loss_weight", "correct": "correct"}


def tree_of(graph: Graph, names: Sequence[str | None]) -> tuple[Graph, str | None]:
    """Add the sum of the values ``names``, a power of two of them, in a binary tree; None stands for zero."""
    level = list(names)
    while len(level) > 1:
        after: list[str | None] = []
        for left, right in zip(level[::2], level[1::2], strict=True):
            if left is None or right is None:
                after.append(left or right)
                continue
            value = graph.values[left]
            made = graph.fresh(f"{left} and more")
            graph = graph.with_value(Value(made, value.shape, dtype=value.dtype))
            sum_ = Node("add", {"a": left, "b": right}, {"y": made}, phase="update", when=_when(graph, left))
            graph = graph.with_node(replace(sum_, origin="data_parallel"))
            after.append(made)
        level = after
    return graph, level[0] if level else None


def _when(graph: Graph, name: str) -> str:
    """When the node runs that makes a value."""
    return next(node.when for node in graph.nodes if name in node.outputs.values())
