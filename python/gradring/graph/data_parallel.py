"""Data parallelism: the step of one process becomes that of one of several ranks that share parameters and optimizer state.

Each rank runs its own rows of a batch, and writes its gradients into a plane of its own; the planes lie one after
another in one arena. Then the ranks meet. The numbers that they bring decide whether the step may change anything. Each
rank owns a part of the gradients: it sums that part of all planes, in rank order, and applies the optimizer's own ops
to it, a block at a time, so that a sum is still in the cache when the optimizer reads it. After the last meeting every
rank may read the parameters.

With clipping, the owners write their sums to their own planes, and another meeting adds up the squares.

With shards, a batch has a fixed number of parts (``parts.py``), each with a plane of its own, and a rank computes several. All
sums over parts (of planes, losses, squares and moments) are added in one binary tree, in which the parts of a rank are a
subtree: the bits are the same for any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from gradring.graph.bound import largest_value
from gradring.graph.fuse_update import updates_of
from gradring.graph.parts import Part, Ranks, in_planes, is_moved, merged_moments, parts_of, tree_of, with_parts
from gradring.ir import Graph, Node, Value
from gradring.ir.layout import GRAIN

__all__ = ["BLOCK", "Part", "Ranks", "check_shares", "data_parallel", "in_planes", "owned", "parts_of"]

BLOCK = 1 << 16
"""The most elements that are summed before the optimizer is applied to them: 256 KiB of float32, for the second cache."""

_ENDS = ("end of the batch", "end of the update")
_FIELDS = ("loss_sum", "loss_weight", "correct", "total_weight", "finite")


def owned(elements: int, ranks: Ranks) -> tuple[int, int]:
    """The part of the gradients that a rank sums and applies, in elements.

    >>> [owned(80, Ranks(rank, 3)) for rank in range(3)]
    [(0, 16), (16, 48), (48, 80)]
    """
    grains = -(-elements // GRAIN)
    begin, end = (grains * rank // ranks.size * GRAIN for rank in (ranks.rank, ranks.rank + 1))
    return min(begin, elements), min(end, elements)


def data_parallel(
    graph: Graph,
    ranks: Ranks,
    *,
    check_finite: bool = False,
    accumulate: bool = False,
    summed: bool = False,
    idle: bool = False,
    parts: Sequence[Part] = (),
) -> Graph:
    """Make the step of one rank from a whole step whose gradients are sums, not divided by the weight of the batch.

    ``check_finite`` asks for a step that changes nothing if a gradient is infinite or NaN. ``summed`` says that the loss is a
    sum over all elements, and no mean. ``idle`` makes the step of a rank that has no rows in a batch: it only takes part
    in the update. ``parts`` are the rank's parts of a batch; without them it has one, whose step is ``graph``.
    """
    updates = updates_of(graph)
    moved = merged_moments(graph)
    clipping = [n for n in graph.nodes if n.phase == "update" and n not in updates and not is_moved(graph, n)]
    base, kept = with_parts(graph, ranks, parts or [Part(None if idle else graph)], accumulate=accumulate)
    made = _Step(base, ranks)
    look = check_finite and not clipping
    if accumulate:
        made.meet("always", losses=True, summed=summed, kept=kept, moved=moved)
    largest = made.largest() if look else None
    made.meet(
        "last" if accumulate else "always",
        losses=not accumulate,
        decides=not clipping,
        summed=summed,
        largest=largest,
        kept=None if accumulate else kept,
        moved=[] if accumulate else moved,
    )
    if look:
        made.prove()
    if clipping:
        made.clip(clipping)
    for node in updates:
        made.update(node, graph, in_cache=not clipping)
    for node in moved if ranks.rank == 0 else ():
        made.add(node)
    if moved and accumulate:  # no part may be computed again before its moments have been read
        made.end("always", _ENDS[0])
    made.end("last", _ENDS[1])
    return replace(
        made.graph, nodes=(*base.nodes, *made.nodes), effects=_effects(base, made.nodes), promise=None, mode=""
    )


def _effects(base: Graph, nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(node.effects for node in (*base.nodes, *nodes) if node.effects)


class _Step:
    """Collects the nodes of the update."""

    def __init__(self, graph: Graph, ranks: Ranks) -> None:
        self.graph, self.ranks = replace(graph.with_step(*_FIELDS), nodes=()), ranks
        self.nodes: list[Node] = []
        self.elements = graph.values["planes"].shape[1]
        self.tree = {"tree": True} if ranks.shards else {}
        self.begin, self.past = owned(self.elements, ranks)

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
        """A view of this rank's first plane."""
        return self.view("planes", self.ranks.own[0] * self.elements + begin, size)

    def largest(self) -> str:
        """The largest magnitudes of this rank's planes."""
        planes = len(self.ranks.own)
        of = "gradients" if planes == 1 else self.own_plane(0, planes * self.elements)
        made = largest_value(self.graph, of)
        self.graph = self.graph.with_value(made)
        self.add(Node("largest", {"x": of}, {"y": made.name}, when="last"))
        return made.name

    def end(self, when: str, effects: str) -> None:
        """Add a meeting behind which all ranks have done what came before it."""
        node = Node("end_update", {"finite": "step.finite"}, {}, {"meeting": self.ranks}, ("finite",), effects)
        self.add(replace(node, when=when))

    def meet(
        self,
        when: str,
        *,
        losses: bool,
        summed: bool,
        decides: bool = False,
        largest: str | None = None,
        kept: str | None = None,
        moved: Sequence[Node] = (),
    ) -> None:
        """Add the meeting of all ranks. ``moved`` are the nodes that need the moments of a batch, and so two rows of it."""
        fields = {"weight" if name == "loss_weight" else name: f"step.{name}" for name in _FIELDS}
        inputs = fields if largest is None else {"largest": largest, **fields}
        if kept is not None:
            inputs = {**inputs, "kept": kept}
        attributes = {"meeting": self.ranks, "losses": losses, "decides": decides, "summed": summed}
        if largest is not None and len(self.ranks.own) > 1:
            attributes["planes"] = len(self.ranks.own)
        origin = next((node.origin for node in moved if node.attributes["each"] < 2), "")
        if origin:
            attributes["least_rows"] = 2
        effects = f"meeting {sum('meeting' in node.attributes for node in self.nodes)}"
        self.add(Node("meet", inputs, {}, attributes, tuple(fields), effects, when=when, origin=origin))

    def prove(self) -> None:
        """Add the check of the sums, for planes whose largest elements might add up to infinity."""
        inputs = {"planes": "planes", "finite": "step.finite"}
        part = {"begin": self.begin, "count": self.past - self.begin}
        attributes = {"meeting": self.ranks, **part, **self.tree}
        self.effect(Node("prove_sums", inputs, {}, attributes, ("finite",), "proof of the sums"))

    def clip(self, clipping: Sequence[Node]) -> None:
        """Add sums in place, and a meeting that adds up the squares of all ranks before the factor is computed."""
        squares, clip = clipping
        count = self.past - self.begin
        if count:
            part = {"row": self.ranks.own[0], "begin": self.begin, "count": count, **self.tree}
            self.effect(Node("sum_planes_in_place", {"planes": "planes"}, {}, part, ("planes",)))
        made, owns = self._squares(squares)
        self.effect(
            Node(
                "meet_squares",
                {"sum": made, "finite": "step.finite"},
                {},
                {"meeting": self.ranks, "owns": owns},
                ("sum", "finite"),
                "meeting about the norm",
            )
        )
        (name,) = squares.outputs.values()
        self.add(replace(clip, inputs={role: made if of == name else of for role, of in clip.inputs.items()}))

    def _squares(self, squares: Node) -> tuple[str, bool]:
        """Add the sums of squares of the sums that this rank owns: one for each of its parts, added in a tree. Also returns
        whether it owns any."""
        (name,) = squares.outputs.values()
        look = self.graph.values.get(name, Value("squares", (1,), dtype="float64"))
        found: list[str | None] = []
        for number in self.ranks.own:
            begin, end = owned(self.elements, Ranks(number, self.ranks.parts))
            if begin == end:
                found.append(None)
                continue
            sum_ = self.value(replace(look, name=f"squares of columns {begin} to {end}"))
            inputs = {**squares.inputs, "gradient": self.own_plane(begin, end - begin)}
            self.add(replace(squares, inputs=inputs, outputs={"sum": sum_}))
            found.append(sum_)
        self.graph, made = tree_of(replace(self.graph, nodes=tuple(self.nodes)), found)
        self.nodes = list(self.graph.nodes)
        return made or self.value(look), made is not None

    def update(self, node: Node, whole: Graph, *, in_cache: bool) -> None:
        """The part of an optimizer's node that this rank owns, block by block."""
        places = {role: whole.place(node.inputs[role]) for role in ("gradient", *node.updates)}
        _, first, past = places["gradient"]
        for begin, end in _blocks(max(first, self.begin), min(past, self.past)):
            views = {
                role: self.view(root, at + begin - first, end - begin)
                for role, (root, at, _) in places.items()
                if role != "gradient"
            }
            if in_cache:
                dtype = self.graph.values["planes"].dtype
                gradient = self.value(Value(f"sum[{begin}:{end}]", (end - begin,), dtype=dtype))
                self.effect(Node("sum_planes", {"planes": "planes"}, {"sum": gradient}, {"begin": begin, **self.tree}))
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
        meetings = [number for number, node in enumerate(graph.nodes) if "meeting" in node.attributes]
        end = next(number for number in meetings if graph.nodes[number].effects in _ENDS)
        decides = max(number for number in meetings if number < end)
        for number, node in enumerate(graph.nodes):
            if "param" not in node.updates:
                continue
            if not decides < number < end:
                raise ValueError(f"[graph] rank {rank}: node {number} ({node.op}) updates outside of an update")
            _, begin, past = graph.place(node.inputs["param"])
            for element in range(begin, past, GRAIN):
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
        return begin % graph.values["planes"].shape[1]
    return int(graph.producers()[name].attributes["begin"])
