"""The memory of a training, which the passes lay out before any batch has come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gradring.graph.differentiate import gradient_name
from gradring.graph.fuse_update import state_view
from gradring.graph.passes import with_update
from gradring.ir import Layout, Memory, memory_of, parameters_graph

__all__ = ["gradient_name", "training_memory"]


def training_memory(layout: Layout, dtype: str, optimizer: Any) -> Memory:
    """Parameters, a gradient ``d(name)`` and the parts of the optimizer's state ``state.momentum[name]`` for each, and
    buffers."""
    graph = parameters_graph(layout, dtype)
    parameters = graph.views("parameters")
    graph = with_update(graph, optimizer, clip_norm=None, sums=False)
    for parameter in parameters:
        gradient = replace(parameter, name=gradient_name(parameter.name), kind="grad", within="gradients")
        graph = graph.with_value(gradient)
        for name in optimizer.state_names:
            graph = graph.with_value(state_view(graph, f"state.{name}", parameter))
    return memory_of(graph)
