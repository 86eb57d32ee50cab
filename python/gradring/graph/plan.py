"""Planning: a graph becomes instructions over buffers whose places are fixed.

Temps live in one arena. Each is alive from the node that makes it to the last that reads it; two that are never alive
together may share memory (largest first, each at the lowest free place: Pisarchyk and Lee, "Efficient Memory
Management for Deep Neural Net Inference", 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from gradring.graph.lower import Instruction, Resource, Tensor, lower
from gradring.graph.schema import dense_strides
from gradring.ir import ITEM, Arena, Graph, Value, memory_of
from gradring.tables import html

__all__ = ["ALIGNMENT", "Buffer", "Plan", "place", "plan"]

ALIGNMENT = 64


@dataclass(frozen=True)
class Buffer:
    """Memory of a program: ``arena`` is the number of its arena in the plan, and ``offset`` counts bytes from there.
    Inputs and outputs have no arena (-1), and ``offset`` is the number of the batch's field."""

    name: str
    kind: str
    bytes: int
    offset: int
    arena: int = -1


@dataclass(frozen=True)
class Plan:
    """A program as data: instructions, the buffers that they use, the arenas in which buffers lie, and the resources that
    instructions name by their numbers. Equal plans do the same. ``barriers`` and ``lanes`` come from the engine, and so does
    ``algorithms``: on a CUDA device, those of the products that timing chose, one per line, after a line with the library's
    version and the device."""

    dtype: str
    mode: str
    input_shape: tuple[int, ...]
    instructions: tuple[Instruction, ...]
    arenas: tuple[Arena, ...]
    buffers: tuple[Buffer, ...]
    resources: tuple[Resource, ...]
    fields: int
    outputs: int
    constants: bytes = b""  # what the arena of that name holds
    barriers: tuple[bool, ...] = field(default=(), compare=False)
    lanes: int = field(default=0, compare=False)
    algorithms: str = field(default="", compare=False)
    # The graph that the instructions were made from; a plan that is kept for long drops it.
    graph: Graph | None = field(default=None, compare=False, repr=False)

    __hash__ = None  # type: ignore[assignment]  # it has mappings, so no hash agrees with ==

    @property
    def rows(self) -> int:
        return self.input_shape[0]

    @property
    def temp_bytes(self) -> int:
        """How many bytes the arenas of the temps take."""
        return sum(arena.bytes for arena in self.arenas if arena.kind == "temp")

    @property
    def flops(self) -> int:
        """Multiplications and additions of a step on its usual route."""
        return sum(i.flops for i in self.instructions if i.when != "unbounded")

    def native(self) -> dict[str, Any]:
        """The program as ``_core.Engine.add`` takes it."""
        return {
            "arenas": [(a.name, a.kind, a.bytes) for a in self.arenas],
            "buffers": [(b.kind, b.bytes, b.offset, b.arena) for b in self.buffers],
            "instructions": [i.native() for i in self.instructions],
            "resources": [r.native() for r in self.resources],
            "fields": self.fields,
            "outputs": self.outputs,
            "constants": self.constants,
        }

    def __str__(self) -> str:
        lines = [self._head(), f"{'':3} {'instruction':34} {'MFLOP':>10} {'KiB':>10}  operands"]
        lines += [f"{bar:>3} {name:34} {flop:>10} {kib:>10}  {said}" for bar, name, flop, kib, said in self._rows()]
        return "\n".join([*lines, self._foot()])

    def _repr_html_(self) -> str:
        header = ("barrier", "instruction", "MFLOP", "KiB", "operands")
        return html(header, self._rows(), caption=f"{self._head()}; {self._foot()}", left=(0, 1, 4))

    def _head(self) -> str:
        lanes = f", {self.lanes} lane{'s' if self.lanes != 1 else ''}" if self.lanes else ""
        return f"{self.mode} program for x {self.input_shape}, {self.dtype}{lanes}"

    def _foot(self) -> str:
        total = sum(b.bytes for b in self.buffers if b.kind == "temp")
        said = f"{self.flops / 1e6:.3f} MFLOP; temps: {self.temp_bytes / 1024:.1f} KiB for {total / 1024:.1f} KiB"
        origin, *chosen = self.algorithms.splitlines() or [""]
        return f"{said}; {len(chosen)} algorithms of products recorded for {origin}" if chosen else said

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        """A line per instruction: a mark if a barrier comes before it, its name, MFLOP, KiB and operands."""
        rows = []
        for i, instruction in enumerate(self.instructions):
            bar = "|" if i < len(self.barriers) and self.barriers[i] else " "
            name = " ".join([instruction.op, *_told(instruction)])
            name += f" ({instruction.when})" if instruction.when not in ("always", "last") else ""
            mflop, kib = f"{instruction.flops / 1e6:.3f}", f"{instruction.traffic / 1024:.1f}"
            rows.append((bar, name, mflop, kib, str(instruction)))
        return rows


def _told(instruction: Instruction) -> list[str]:
    """The attributes to print: choices and flags that are set."""
    chosen = [value for value in instruction.attributes.values() if isinstance(value, str)]
    return [*chosen, *(name for name, value in instruction.attributes.items() if value is True)]


def place(sizes: Mapping[str, int], alive: Mapping[str, tuple[int, int]]) -> tuple[dict[str, int], int]:
    """Offsets for blocks of ``sizes`` bytes that are alive over closed ranges of steps, and the total bytes.

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


def _temps(graph: Graph, alive: Mapping[str, tuple[int, int]]) -> tuple[dict[str, Arena], dict[str, int]]:
    """The arenas of the temps, and the offset of each temp in its arena."""
    arenas: dict[str, Arena] = {}
    offsets: dict[str, int] = {}
    for arena in dict.fromkeys(graph.values[name].lies_in for name in alive):
        inside = [graph.values[name] for name in alive if graph.values[name].lies_in == arena]
        found, size = place({v.name: _align(v.size * ITEM[v.dtype]) for v in inside}, alive)
        arenas[arena] = Arena(arena, "temp", size)
        offsets.update(found)
    return arenas, offsets


def _constants(graph: Graph) -> tuple[dict[str, Arena], dict[str, int], bytes]:
    """The arena of the constants, where each of them lies in it, and what it holds."""
    offsets: dict[str, int] = {}
    held = bytearray()
    for value in graph.values.values():
        if value.kind == "const":
            held.extend(bytes(_align(len(held)) - len(held)))
            offsets[value.name] = len(held)
            held.extend(np.array(value.data, value.dtype).tobytes())
    return {"constants": Arena("constants", "const", len(held))} if held else {}, offsets, bytes(held)


def plan(graph: Graph, output: str | None, *, mode: str) -> Plan:
    """Fix every buffer's place. ``output`` names the value that the program delivers, or is None."""
    values = graph.values
    first = next(value for value in values.values() if value.kind == "input")
    dtype = values["parameters"].dtype if "parameters" in values else first.dtype
    delivered = graph.root(output) if output is not None else None

    alive: dict[str, tuple[int, int]] = {}
    for step, node in enumerate(graph.nodes):
        for name in map(graph.root, node.names()):
            if values[name].kind == "temp" and name != delivered:
                alive[name] = (alive.get(name, (step, step))[0], step)
    arenas, offsets = _temps(graph, alive)
    arenas.update(memory_of(graph).arenas)
    known, places, constants = _constants(graph)
    arenas.update(known)
    offsets.update(places)
    roots = list(dict.fromkeys(graph.root(n) for node in graph.nodes for n in node.names() if values[n].kind != "step"))
    number = {name: i for i, name in enumerate(roots)}
    used = list(dict.fromkeys(values[n].lies_in for n in roots if n != delivered and values[n].kind != "input"))

    def buffer(root: Value) -> Buffer:
        size = root.size * ITEM[root.dtype]
        if root.name == delivered:
            return Buffer(root.name, "output", size, 0)
        if root.kind == "input":
            return Buffer(root.name, "input", size, root.offset)
        offset = offsets[root.name] if root.kind in ("temp", "const") else root.offset * ITEM[root.dtype]
        return Buffer(root.name, arenas[root.lies_in].kind, size, offset, used.index(root.lies_in))

    @cache
    def tensor(name: str) -> Tensor:
        value = values[name]
        if value.kind == "step":
            return Tensor(name, (), value.dtype, -1, 0, ())
        root, begin, _ = graph.place(name)
        strides = dense_strides(value.shape, value.dtype)
        return Tensor(name, value.shape, value.dtype, number[root], begin * ITEM[value.dtype], strides)

    resources: list[Resource] = []
    instructions = tuple(lower(node, tensor, resources) for node in graph.nodes)
    inputs = [v for v in values.values() if v.kind == "input" and v.within is None]
    return Plan(
        dtype=dtype,
        mode=mode,
        input_shape=first.shape,
        instructions=instructions,
        arenas=tuple(arenas[name] for name in used),
        buffers=tuple(buffer(values[name]) for name in roots),
        resources=tuple(resources),
        fields=1 + max(v.offset for v in inputs),
        outputs=int(delivered in number),
        constants=constants,
    )
