"""Planning: a graph becomes instructions over buffers whose places are fixed.

Temps live in one arena. Each is alive from the node that makes it to the last that reads it; two that are never alive
together may share memory (largest first, each at the lowest free place: Pisarchyk and Lee, "Efficient Memory
Management for Deep Neural Net Inference", 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradring.graph.lower import Instruction, lower
from gradring.ir import Graph

__all__ = ["ALIGNMENT", "Plan", "place", "plan"]

ALIGNMENT = 64
_ITEM = {"float32": 4, "float64": 8, "int64": 8}


@dataclass(frozen=True)
class Plan:
    """A program: instructions, buffers and the memory they want. ``barriers`` and ``lanes`` come from the engine."""

    dtype: str
    mode: str
    input_shape: tuple[int, ...]
    instructions: tuple[Instruction, ...]
    buffers: tuple[tuple[str, str, int, int], ...]  # kind, dtype, elements, offset in bytes (or the field's number)
    names: tuple[str, ...]  # of the buffers
    temp_bytes: int
    fields: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    barriers: tuple[bool, ...] = ()
    lanes: int = 0
    graph: Graph | None = None  # what the instructions were made from; a plan that is kept goes without

    @property
    def rows(self) -> int:
        return self.input_shape[0]

    @property
    def flops(self) -> int:
        """Of a step on its usual route."""
        return sum(i.flops for i in self.instructions if i.when != "unbounded")

    def native(self) -> list[tuple[str, str, list[int], list[int], list[float]]]:
        """The instructions as the native side takes them."""
        number = {name: i for i, name in enumerate(self.names)}
        return [
            (i.op, i.when, [-1 if o is None else number[o] for o in i.operands], list(i.integers), list(i.reals))
            for i in self.instructions
        ]

    def traffic(self, instruction: Instruction) -> int:
        """Bytes of the operands, each counted once."""
        sizes = dict(zip(self.names, self.buffers, strict=True))
        return sum(sizes[o][2] * _ITEM[sizes[o][1]] for o in set(instruction.operands) if o is not None)

    def __str__(self) -> str:
        head = f"{self.mode} program for x {self.input_shape}, {self.dtype}"
        head += f", {self.lanes} lane{'s' if self.lanes != 1 else ''}" if self.lanes else ""
        lines = [head, f"{'':3} {'instruction':34} {'sizes':>20} {'MFLOP':>10} {'KiB':>10}  operands"]
        for i, instruction in enumerate(self.instructions):
            bar = "|" if i < len(self.barriers) and self.barriers[i] else " "
            sizes = "x".join(map(str, instruction.integers[:3])) if instruction.op == "matmul" else ""
            name = f"{instruction.op} {instruction.note}".strip()
            name += f" ({instruction.when})" if instruction.when not in ("always", "last") else ""
            operands = ", ".join("-" if o is None else o for o in instruction.operands).rstrip("-, ")
            lines.append(
                f"{bar:>3} {name:34} {sizes:>20} {instruction.flops / 1e6:10.3f} "
                f"{self.traffic(instruction) / 1024:10.1f}  {operands}"
            )
        total = sum(b[2] * _ITEM[b[1]] for b in self.buffers if b[0] == "temp")
        lines.append(
            f"{self.flops / 1e6:.3f} MFLOP; temps: {self.temp_bytes / 1024:.1f} KiB for {total / 1024:.1f} KiB"
        )
        return "\n".join(lines)


def place(sizes: Mapping[str, int], alive: Mapping[str, tuple[int, int]]) -> tuple[dict[str, int], int]:
    """Offsets for blocks of ``sizes`` bytes that are alive over closed ranges of steps, and the bytes they take.

    >>> place({"a": 64, "b": 64, "c": 64}, {"a": (0, 1), "b": (1, 2), "c": (2, 3)})
    ({'a': 0, 'b': 64, 'c': 0}, 128)
    """
    placed: list[tuple[int, int, str]] = []
    offsets: dict[str, int] = {}
    for name in sorted(sizes, key=lambda n: (-sizes[n], alive[n], n)):
        first, last = alive[name]
        taken = sorted((o, o + s) for o, s, n in placed if alive[n][0] <= last and first <= alive[n][1])
        at = 0
        for begin, end in taken:
            if at + sizes[name] <= begin:
                break
            at = max(at, end)
        offsets[name] = at
        placed.append((at, sizes[name], name))
    return {n: offsets[n] for n in sizes}, max((o + s for o, s, _ in placed), default=0)


def _align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def plan(graph: Graph, output: str | None, *, mode: str) -> Plan:
    """Fix every buffer's place. ``output`` names the value that the program delivers, or is None."""
    values = graph.values
    dtype = values["x"].dtype
    delivered = graph.root(output) if output is not None else None

    alive: dict[str, tuple[int, int]] = {}
    for step, node in enumerate(graph.nodes):
        for name in map(graph.root, node.names()):
            if values[name].kind == "temp" and name != delivered:
                alive[name] = (alive.get(name, (step, step))[0], step)
    sizes = {name: _align(values[name].size * _ITEM[values[name].dtype]) for name in alive}
    offsets, temp_bytes = place(sizes, alive)

    def buffer(name: str) -> tuple[str, str, int, int]:
        value, (owner, begin, _) = values[name], graph.place(name)
        root = values[owner]
        if owner == delivered:
            return "output", value.dtype, value.size, 0
        if root.kind == "input":
            return "input", value.dtype, value.size, root.offset
        start = offsets[owner] if root.kind == "temp" else root.offset * _ITEM[root.dtype]
        return root.kind, value.dtype, value.size, start + begin * _ITEM[root.dtype]

    instructions = tuple(lower(graph, node) for node in graph.nodes)
    names = tuple(dict.fromkeys(o for i in instructions for o in i.operands if o is not None))
    inputs = [v for v in values.values() if v.kind == "input" and v.within is None]
    return Plan(
        dtype=dtype,
        mode=mode,
        input_shape=values["x"].shape,
        instructions=instructions,
        buffers=tuple(map(buffer, names)),
        names=names,
        temp_bytes=temp_bytes,
        fields=1 + max(v.offset for v in inputs),
        shapes={name: values[name].shape for name in names},
    )
