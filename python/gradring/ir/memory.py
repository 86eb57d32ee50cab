"""Memory that outlives a step, as a graph lays it out: arenas, and what lies where in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gradring.ir.graph import Graph
from gradring.ir.layout import Layout
from gradring.ir.values import ITEM, Value

__all__ = ["Arena", "Memory", "Place", "memory_of", "parameters_graph", "roots_of"]


@dataclass(frozen=True, slots=True)
class Arena:
    """A flat block of memory with a name. Several may be of one ``kind``: param, grad, state or temp."""

    name: str
    kind: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a value: ``offset`` bytes from the beginning of an arena."""

    arena: str
    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Memory:
    """The arenas that a graph needs beside those of its temps, and the places of its values there, both by name.

    A session allocates its arrays by this. A pass that wants another layout changes the values of the graph, whose
    roots name their ``arena``.
    """

    arenas: Mapping[str, Arena]
    places: Mapping[str, Place]

    __hash__ = None  # type: ignore[assignment]  # it has mappings, so no hash agrees with ==


def memory_of(graph: Graph) -> Memory:
    """The memory that a graph needs and that outlives a step.

    >>> graph = parameters_graph(Layout.of({"weight": (8, 6), "bias": (6,)}), "float32")
    >>> memory = memory_of(graph)
    >>> memory.arenas
    {'parameters': Arena(name='parameters', kind='param', bytes=256)}
    >>> memory.places["bias"]
    Place(arena='parameters', offset=192, shape=(6,), dtype='float32')
    """
    arenas: dict[str, Arena] = {}
    places: dict[str, Place] = {}
    for value in graph.values.values():
        if value.kind not in ("param", "buffer", "grad", "state"):
            continue
        name, begin, past = graph.place(value.name)
        root, item = graph.values[name], ITEM[value.dtype]
        arena = root.lies_in
        kind = (
            "param" if root.kind == "buffer" else root.kind
        )  # buffers are saved with the parameters, and lie with them
        known = arenas.get(arena, Arena(arena, kind, 0))
        if known.kind != kind:
            raise ValueError(
                f"[graph] value {root.name!r}: arena: expected one of kind {kind}, got {arena!r} of {known.kind}"
            )
        arenas[arena] = replace(known, bytes=max(known.bytes, (root.offset + past) * item))
        places[value.name] = Place(arena, (root.offset + begin) * item, value.shape, value.dtype)
    return Memory(arenas, places)


def roots_of(layout: Layout, dtype: str) -> list[Value]:
    """The roots of a model's parameters and buffers."""
    roots = [Value("parameters", (layout.elements,), "param", dtype)]
    if layout.buffers is not None:
        roots.append(Value("buffers", (layout.buffers.elements,), "buffer", dtype, offset=layout.elements))
    return roots


def parameters_graph(layout: Layout, dtype: str) -> Graph:
    """A graph of a model's parameters and buffers alone, on which the passes that lay out memory run before the first
    batch."""
    graph = Graph()
    for root in roots_of(layout, dtype):
        graph = graph.with_value(root)
        part = layout if root.kind == "param" or layout.buffers is None else layout.buffers
        for name, shape in part.shapes.items():
            view = Value(name, shape, root.kind, dtype, within=root.name, offset=part.offsets[name])
            graph = graph.with_value(view)
    return graph
