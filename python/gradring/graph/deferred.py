"""Running statistics that wait for the end of a group of micro-batches.

With a scaled loss, an overflow is found when the last micro-batch of a group has come, and then the whole group is skipped.
So its micro-batches move a copy of the buffers, which replaces them behind the check of the group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gradring.ir import Graph, Node, Value

__all__ = ["MOVED", "moved_name", "with_deferred_buffers", "with_moved"]

MOVED = "moved"  # the root of the copies, and their arena


def moved_name(buffer: str) -> str:
    """The name of the copy of a buffer."""
    return f"moved({buffer})"


def with_moved(graph: Graph) -> Graph:
    """The graph with a copy of each buffer among its values."""
    buffers = graph.values["buffers"]
    graph = graph.with_value(Value(MOVED, buffers.shape, "grad", buffers.dtype, arena=MOVED))
    for value in graph.views("buffers"):
        graph = graph.with_value(replace(value, name=moved_name(value.name), kind="grad", within=MOVED))
    return graph


def with_deferred_buffers(graph: Graph, moves: Sequence[Node]) -> Graph:
    """The graph of a whole step with the nodes ``moves``, which change buffers, at its end: they change the copies. The first
    micro-batch of a group begins the copies, and the last one takes them over."""
    if not moves:
        return graph
    graph = with_moved(graph)
    changed = [node.inputs[role] for node in moves for role in node.updates]
    copy = Node("copy", {}, {}, phase="update", origin="running statistics")
    begin = [replace(copy, inputs={"x": name}, outputs={"y": moved_name(name)}, when="first") for name in changed]
    end = [replace(copy, inputs={"x": moved_name(name)}, outputs={"y": name}, when="last") for name in changed]
    return graph.with_nodes([*graph.nodes, *begin, *(_moving(node) for node in moves), *end])


def _moving(node: Node) -> Node:
    """A node that changes the copies of the buffers that it would change."""

    def renamed(inputs: Mapping[str, str]) -> dict[str, str]:
        return {role: moved_name(name) if role in node.updates else name for role, name in inputs.items()}

    return replace(node, inputs=renamed(node.inputs))
