"""The graph: a straight line of nodes over named values. Every pass is a function from graph to graph.

>>> from gradring.ir import Graph, Node, Value
>>> g = Graph()
>>> g = g.with_value(Value("x", (32, 64), "input")).with_value(Value("w", (64, 10), "param"))
>>> g = g.with_value(Value("y", (32, 10)))
>>> g = g.with_node(Node("linear", {"x": "x", "w": "w"}, {"y": "y"}))
>>> print(g)
y (32, 10) = linear(x=x, w=w)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradring.ir.nodes import Node
from gradring.ir.values import Value, step_value

__all__ = ["Graph"]


@dataclass(frozen=True)
class Graph:
    """Values by name and the nodes that make them, in order.

    ``effects`` are those of the nodes in the order in which they were added; a rewriting must keep them. ``mode`` is
    ``"train"``, ``"evaluate"`` or ``"predict"`` once the graph is complete, and empty while it is being built.
    ``promise`` is the graph whose results a rewriting must keep.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    effects: tuple[str, ...] = ()
    mode: str = ""
    promise: Graph | None = field(default=None, repr=False, compare=False)
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _places: dict[str, tuple[str, int, int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    __hash__ = None  # type: ignore[assignment]  # it has mappings, so no hash agrees with ==

    def known(self, name: str, compute: Callable[[Graph], Any]) -> Any:
        """``compute(self)``, computed once, because a graph never changes."""
        if name not in self._known:
            self._known[name] = compute(self)
        return self._known[name]

    def with_value(self, value: Value) -> Graph:
        """This graph with another value, whose name must be new."""
        if value.name in self.values:
            raise ValueError(f"[graph] two values are called {value.name!r}")
        return replace(self, values={**self.values, value.name: value})

    def with_step(self, *fields: str) -> Graph:
        """This graph with these fields of the step record among its values."""
        new = {v.name: v for v in map(step_value, fields) if v.name not in self.values}
        return replace(self, values={**self.values, **new})

    def with_node(self, node: Node) -> Graph:
        """This graph with another node at its end. The node's effects become part of the graph's promise."""
        effects = (*self.effects, node.effects) if node.effects else self.effects
        return replace(self, nodes=(*self.nodes, node), effects=effects)

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        """This graph with other nodes, which must have the effects of the old ones."""
        return replace(self, nodes=tuple(nodes))

    def fresh(self, name: str) -> str:
        """A new name: ``name``, or if a value has it already, ``name~2``, ``name~3``, ..."""
        number, unique = 2, name
        while unique in self.values:
            unique, number = f"{name}~{number}", number + 1
        return unique

    def root(self, name: str) -> str:
        """The value that owns the memory of ``name``."""
        while (within := self.values[name].within) is not None:
            name = within
        return name

    def place(self, name: str) -> tuple[str, int, int]:
        """The place of a value: its root, its first element there, and the element after its last."""
        found = self._places.get(name)
        if found is None:
            value = self.values[name]
            size, begin = value.size, 0
            while value.within is not None:
                begin += value.offset
                value = self.values[value.within]
            found = self._places[name] = (value.name, begin, begin + size)
        return found

    def views(self, root: str) -> list[Value]:
        """The views of a root, in the order of their memory; without spans of several."""
        inside = [v for v in self.values.values() if v.within is not None and not v.span and self.root(v.name) == root]
        return sorted(inside, key=lambda v: self.place(v.name)[1:])

    def writers(self, root: str, begin: int, end: int) -> Iterator[Node]:
        """The nodes that write an element of this range of a root, in order."""
        for node in self.nodes:
            for _, name in node.written():
                owner, first, past = self.place(name)
                if owner == root and max(first, begin) < min(past, end):
                    yield node
                    break

    def last_writer(self, root: str, begin: int, end: int) -> Node | None:
        """The last node that writes an element of this range: once it has run, the range is complete."""
        last = None
        for node in self.writers(root, begin, end):
            last = node
        return last

    def producers(self) -> dict[str, Node]:
        """The node that makes each value, by the value's name."""
        return {name: node for node in self.nodes for _, name in node.written()}

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each root's memory, by way of the root or of any of its views."""
        result: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in set(map(self.root, node.inputs.values())):
                result.setdefault(name, []).append(node)
        return result

    def __str__(self) -> str:
        lines = []
        for node in self.nodes:
            made = ", ".join(f"{n} {self.values[n].shape}" for _, n in node.written() if self.values[n].kind != "step")
            lines.append(f"{made or 'step'} = {str(node).split(' = ', 1)[1]}")
        return "\n".join(lines)
