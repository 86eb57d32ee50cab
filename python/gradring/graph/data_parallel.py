"""Data parallelism: the step of one process becomes that of one of several ranks that share parameters and optimizer state.

Each rank runs its own rows of a batch, and writes its gradients into a plane of its own; the planes lie one after
another in one arena. Then the ranks meet. The numbers that they bring decide whether the step may change anything. Each
rank owns a part of the gradients: it sums that part of all planes, in rank order, and applies the optimizer's own ops
to it, a block at a time, so that a sum is still in the cache when the optimizer reads it. After the last meeting every
rank may read the parameters.

With clipping, the owners write their sums to their own planes, and another meeting adds up the squares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradring.graph.bound import largest_value
from gradring.graph.fuse_update import updates_of
from gradring.ir import Graph, Node, Value
from gradring.ir.layout import GRAIN

__all__ = ["BLOCK", "Ranks", "check_shares", "data_parallel", "in_planes", "owned"]

BLOCK = 1 << 16
"""The most elements that are summed before the optimizer is applied to them: 256 KiB of float32, for the second cache."""

_FIELDS = ("loss_sum", "loss_weight", "correct", "total_weight", "finite")


@dataclass(frozen=True)
class Ranks:
    """The place of a rank among all. As an attribute of a node it represents the ``meeting`` of that rank, a native object that
    graphs and plans do not inspect."""

    rank: int
    size: int
    meeting: Any = field(default=None, compare=False, repr=False)

    def callback(self, op: str, shapes: Any, dtypes: Any) -> Any:
        """The native object for a program's table of resources."""
        return self.meeting


def owned(elements: int, ranks: Ranks) -> tuple[int, int]:
    """The part of the gradients that a rank sums and applies, in elements.

    >>> [owned(80, Ranks(rank, 3)) for rank in range(3)]
    [(0, 16), (16, 48), (48, 80)]
    """
    grains = -(-elements // GRAIN)
    begin, end = (grains * rank // ranks.size * GRAIN for rank in (ranks.rank, ranks.rank + 1))
    return min(begin, elements), min(end, elements)


def in_planes(graph: Graph, ranks: Ranks) -> Graph:
    """The graph with its root of gradients as one rank's plane in the arena of all planes."""
    gradients = graph.values["gradients"]
    planes = Value("planes", (ranks.size, gradients.size), "grad", gradients.dtype)
    plane = replace(gradients, within="planes", offset=ranks.rank * gradients.size)
    return replace(graph, values={"planes": planes, **graph.values, "gradients": plane})


def data_parallel(
    graph: Graph,
    ranks: Ranks,
    *,
    check_finite: bool = False,
    accumulate: bool = False,
    summed: bool = False,
    idle: bool = False,
) -> Graph:
    """Make the step of one rank from a whole step whose gradients are sums, not divided by the weight of the batch.

    ``check_finite`` asks for a step that changes nothing if a gradient is infinite or NaN. ``summed`` says that the loss is a
    sum over all elements, and no mean. ``idle`` makes the step of a rank that has no rows in a batch: it only takes part
    in the update.
    """
    updates = updates_of(graph)
    clipping = [node for node in graph.nodes if node.phase == "update" and node not in updates]
    before = [node for node in graph.nodes if node.phase != "update"]
    made = _Step(in_planes(graph, ranks), ranks)
    if idle:
        before = []
        made.add(Node("clear_plane", {}, {"plane": "gradients"}, when="first" if accumulate else "always"))
    look = check_finite and not clipping
    if accumulate:
        made.meet("always", losses=True, summed=summed)
    largest = made.largest() if look else None
    made.meet(
        "last" if accumulate else "always",
        losses=not accumulate,
        decides=not clipping,
        summed=summed,
        largest=largest,
    )
    if look:
        made.prove()
    if clipping:
        made.clip(clipping)
    for node in updates:
        made.update(node, graph, in_cache=not clipping)
    made.effect(Node("end_update", {"finite": "step.finite"}, {}, {"meeting": ranks}, ("finite",), "end of the update"))
    done = made.graph
    effects = tuple(node.effects for node in (*before, *made.nodes) if node.effects)
    return replace(done, nodes=(*before, *made.nodes), effects=effects, promise=None, mode="")


class _Step:
    """Collects the nodes of the update."""

    def __init__(self, graph: Graph, ranks: Ranks) -> None:
        self.graph, self.ranks = graph.with_step(*_FIELDS), ranks
        self.nodes: list[Node] = []
        self.elements = graph.values["gradients"].size
        self.begin, self.end = owned(self.elements, ranks)

    def add(self, node: Node) -> None:
        """Add a node of the update."""
        self.nodes.append(replace(node, phase="update", origin=node.origin or "data_parallel"))

    def effect(self, node: Node) -> None:
        """Add a node that has effects, in the last micro-batch of an update."""
        self.add(replace(node, when="last"))

    def value(self, value: Value) -> str:
        """Add a value under an unused name, and return the name."""
        named = replace(value, name=self.graph.fresh(value.name))
        self.graph = self.graph.with_value(named)
        return named.name

    def view(self, root: str, begin: int, size: int) -> str:
        """A flat view of a root."""
        of = self.graph.values[root]
        name = f"{root}[{begin}:{begin + size}]"
        return self.value(Value(name, (size,), of.kind, of.dtype, within=root, offset=begin, span=True))

    def own_plane(self, begin: int, size: int) -> str:
        """A view of this rank's plane."""
        return self.view("planes", self.ranks.rank * self.elements + begin, size)

    def largest(self) -> str:
        """The largest magnitudes of this rank's plane."""
        made = largest_value(self.graph, "gradients")
        self.graph = self.graph.with_value(made)
        self.add(Node("largest", {"x": "gradients"}, {"y": made.name}, when="last"))
        return made.name

    def meet(self, when: str, *, losses: bool, summed: bool, decides: bool = False, largest: str | None = None) -> None:
        """Add the meeting of all ranks."""
        fields = {"weight" if name == "loss_weight" else name: f"step.{name}" for name in _FIELDS}
        inputs = fields if largest is None else {"largest": largest, **fields}
        attributes = {"meeting": self.ranks, "losses": losses, "decides": decides, "summed": summed}
        effects = f"meeting {sum('meeting' in node.attributes for node in self.nodes)}"
        self.add(Node("meet", inputs, {}, attributes, tuple(fields), effects, when=when))

    def prove(self) -> None:
        """Add the check of the sums, for planes whose largest elements might add up to infinity."""
        inputs = {"planes": "planes", "finite": "step.finite"}
        part = {"begin": self.begin, "count": self.end - self.begin}
        self.effect(Node("prove_sums", inputs, {}, {"meeting": self.ranks, **part}, ("finite",), "proof of the sums"))

    def clip(self, clipping: Sequence[Node]) -> None:
        """Add sums in place, and a meeting that adds up the squares of all ranks before the factor is computed."""
        squares, clip = clipping
        count = self.end - self.begin
        if count:
            part = {"row": self.ranks.rank, "begin": self.begin, "count": count}
            self.effect(Node("sum_planes_in_place", {"planes": "planes"}, {}, part, ("planes",)))
            self.add(replace(squares, inputs={**squares.inputs, "gradient": self.own_plane(self.begin, count)}))
        (made,) = squares.outputs.values()
        self.effect(
            Node(
                "meet_squares",
                {"sum": made, "finite": "step.finite"},
                {},
                {"meeting": self.ranks, "owns": count > 0},
                ("sum", "finite"),
                "meeting about the norm",
            )
        )
        self.add(clip)

    def update(self, node: Node, whole: Graph, *, in_cache: bool) -> None:
        """The part of an optimizer's node that this rank owns, block by block."""
        places = {role: whole.place(node.inputs[role]) for role in ("gradient", *node.updates)}
        _, first, past = places["gradient"]
        for begin, end in _blocks(max(first, self.begin), min(past, self.end)):
            views = {
                role: self.view(root, at + begin - first, end - begin)
                for role, (root, at, _) in places.items()
                if role != "gradient"
            }
            if in_cache:
                dtype = self.graph.values["planes"].dtype
                gradient = self.value(Value(f"sum[{begin}:{end}]", (end - begin,), dtype=dtype))
                self.effect(Node("sum_planes", {"planes": "planes"}, {"sum": gradient}, {"begin": begin}))
            else:
                gradient = self.own_plane(begin, end - begin)
            self.add(replace(node, inputs={**node.inputs, **views, "gradient": gradient}))


def _blocks(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(begin, end, BLOCK):
        yield at, min(at + BLOCK, end)


def check_shares(whole: Graph, shares: Sequence[Graph]) -> None:
    """Raise ``ValueError`` unless the ranks' steps together update what the whole step does: each element by one rank, by its
    own gradient and with its own state, after the meeting that decides and before the end of the update."""
    done: dict[Any, int] = {}
    for rank, graph in enumerate(shares):
        *_, decides, end = (number for number, node in enumerate(graph.nodes) if "meeting" in node.attributes)
        for number, node in enumerate(graph.nodes):
            if "param" not in node.updates:
                continue
            if not decides < number < end:
                raise ValueError(f"[graph] rank {rank}: node {number} ({node.op}) updates outside of an update")
            _, begin, end = graph.place(node.inputs["param"])
            for element in range(begin, end, GRAIN):
                key = _moved(graph, node, element - begin)
                if key in done:
                    raise ValueError(f"[graph] ranks {done[key]} and {rank} both update element {element}")
                done[key] = rank
    expected = {
        _moved(whole, node, element)
        for node in updates_of(whole)
        for element in range(0, whole.values[node.inputs["param"]].size, GRAIN)
    }
    if set(done) != expected:
        raise ValueError(f"[graph] the ranks update {len(done)} parts of {len(expected)}, or with other operands")


def _moved(graph: Graph, node: Node, at: int) -> Any:
    """The element that a node updates, the elements that it uses, and how it updates."""
    operands = []
    for role in ("param", "gradient", *node.updates):
        root, begin, _ = graph.place(node.inputs[role])
        if role == "gradient" and root != "gradients":
            begin = _gradient_of(graph, node)
            root = "gradients"
        operands.append((role, root, begin + at))
    return node.op, tuple(operands), tuple(sorted(node.attributes.items()))


def _gradient_of(graph: Graph, node: Node) -> int:
    """The element of the gradients at which the sum that a rank's node reads begins."""
    name = node.inputs["gradient"]
    root, begin, _ = graph.place(name)
    if root == "planes":
        return begin % graph.values["gradients"].size
    return int(graph.producers()[name].attributes["begin"])
