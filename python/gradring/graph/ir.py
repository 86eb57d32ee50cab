"""The graph: a straight line of nodes over named values. Plain data, and every pass is a function from graph to graph.

>>> g = Graph()
>>> g = g.with_value(Value("x", (32, 64), "input")).with_value(Value("w", (64, 10), "param"))
>>> g = g.with_value(Value("y", (32, 10)))
>>> g = g.with_node(Node("linear", {"x": "x", "w": "w"}, {"y": "y"}))
>>> print(g)
y (32, 10) = linear(x=x, w=w)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Graph", "Node", "Value"]


@dataclass(frozen=True)
class Value:
    """An array of known shape. ``kind`` says where it lives: input, output, param, grad, state or temp.

    ``dtype`` is ``"real"`` (the program's float type), ``"float64"`` or ``"int64"``. ``within`` names the
    value whose memory this one is a part of, from element ``offset`` on: a reshaped view. An input's ``offset`` is the
    number of its field in the batch.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = "temp"
    dtype: str = "real"
    within: str | None = None
    offset: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Node:
    """One operation. ``inputs`` and ``outputs`` map the operation's roles to names of values."""

    op: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        arguments = [f"{role}={name}" for role, name in self.inputs.items()]
        arguments += [f"{key}={value!r}" for key, value in self.attributes.items()]
        return f"{', '.join(self.outputs.values())} = {self.op}({', '.join(arguments)})"


@dataclass(frozen=True)
class Graph:
    """Values by name and the nodes that make them, in order."""

    values: Mapping[str, Value] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()

    def with_value(self, value: Value) -> Graph:
        if value.name in self.values:
            raise ValueError(f"[graph] two values are called {value.name!r}")
        return replace(self, values={**self.values, value.name: value})

    def with_node(self, node: Node) -> Graph:
        return replace(self, nodes=(*self.nodes, node))

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        return replace(self, nodes=tuple(nodes))

    def root(self, name: str) -> str:
        """The value that owns the memory of ``name``."""
        while (within := self.values[name].within) is not None:
            name = within
        return name

    def producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs.values()}

    def consumers(self) -> dict[str, list[Node]]:
        """Who reads each value's memory, under whatever name."""
        result: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in set(map(self.root, node.inputs.values())):
                result.setdefault(name, []).append(node)
        return result

    def __str__(self) -> str:
        lines = []
        for node in self.nodes:
            shapes = ", ".join(f"{n} {self.values[n].shape}" for n in node.outputs.values())
            lines.append(f"{shapes} = {str(node).split(' = ', 1)[1]}")
        return "\n".join(lines)
