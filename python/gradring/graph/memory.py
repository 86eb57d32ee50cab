"""The memory of a training, which the passes lay out before the first batch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from gradring.graph.data_parallel import Ranks, in_planes
from gradring.graph.deferred import moved_name, with_moved
from gradring.graph.differentiate import gradient_name
from gradring.graph.fuse_update import state_view
from gradring.graph.passes import training_roots
from gradring.ir import Layout, Memory, memory_of, parameters_graph

__all__ = ["gradient_name", "moved_name", "training_memory"]


def training_memory(
    layout: Layout,
    dtype: str,
    optimizer: Any,
    frozen: Collection[str] = (),
    ranks: Ranks | None = None,
    *,
    deferred: bool = False,
) -> Memory:
    """The memory for parameters and buffers and, for each parameter that is not ``frozen``, a gradient ``d(name)`` and the
    optimizer's states ``state.momentum[name]``. With several ``ranks`` each has gradients of its own in a plane, and those
    with names are in the plane of this rank. ``deferred`` buffers have copies, too, which micro-batches move."""
    graph = parameters_graph(layout, dtype)
    trained = layout.without(frozen)
    graph = training_roots(graph, optimizer, trained)
    for parameter, offset in trained.offsets.items():
        value = graph.values[parameter]
        gradient = replace(value, name=gradient_name(parameter), kind="grad", within="gradients", offset=offset)
        graph = graph.with_value(gradient)
        for name in optimizer.state_names:
            graph = graph.with_value(state_view(graph, f"state.{name}", value, offset))
    if deferred and layout.buffers is not None:
        graph = with_moved(graph)
    return memory_of(graph if ranks is None or ranks.size == 1 else in_planes(graph, ranks))
