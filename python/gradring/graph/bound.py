"""Proofs that no gradient of a step is infinite or NaN, before the first update.

An element of ``dw = x' dy`` is a sum over the rows, so its magnitude is at most rows * max|x| * max|dy|. If that is
finite for every product, updates may be fused into the products. If not, the step takes its other route: the gradients
go to memory, are checked, and are then applied by separate updates, with the same bits.
"""

from __future__ import annotations

import math
from dataclasses import replace

from gradring.graph.schema import Operand, schema_of
from gradring.ir import Graph, Node, Value

__all__ = ["BLOCK", "Bounds", "checked_gradients"]

# How many elements share one number of ``largest`` (csrc/ops/largest/largest.h).
BLOCK = 4096


def largest_value(graph: Graph, of: str) -> Value:
    """A new value, for the largest magnitudes of the value ``of``."""
    value = graph.values[of]
    return Value(graph.fresh(f"{of}.largest"), (-(-value.size // BLOCK),), dtype=value.dtype)


def checked_gradients(graph: Graph, when: str, updates: int) -> Graph:
    """Add a check of the gradients in memory before the optimizer's nodes, which are the last ``updates`` ones."""
    made = largest_value(graph, "gradients")
    look = Node("largest", {"x": "gradients"}, {"y": made.name}, phase="update", when=when, origin="check")
    effects = "check of the gradients"
    check = Node("check_gradients", {"largest": made.name}, {}, {}, (), effects, "update", when, "check")
    graph = replace(graph.with_value(made), effects=(*graph.effects, effects))
    before = len(graph.nodes) - updates
    return graph.with_nodes([*graph.nodes[:before], look, check, *graph.nodes[before:]])


def _keeps_bound(graph: Graph, node: Node) -> bool:
    """Whether the bound that a loss promises for its gradient still holds with this node's targets and weights."""
    if "target" in node.inputs and graph.values[node.inputs["target"]].dtype != "int64":
        return False
    weighted = "sample_weight" in node.inputs or "class_weight" in node.inputs
    spread = "class_weight" in node.inputs and node.attributes.get("label_smoothing", 0.0) > 0
    return not weighted or (node.attributes.get("reduction") == "mean" and not spread)


def _outputs(node: Node) -> dict[str, Operand]:
    schema = schema_of(node.op)
    return {role: schema.operands[role] for role in node.outputs} if schema is not None else {}


class Bounds:
    """The nodes that bound the gradients of a graph, one for each pair of ``x`` and ``dy``."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.with_step("bounded")
        self._looks: list[Node] = []
        self._proofs: list[Node] = []
        self._largest: dict[tuple[str, int, int], str] = {}
        self._bounded: set[tuple[str, int, int]] = set()  # gradients dy whose sums over the rows are bounded as well
        # Gradients whose op promises a bound, such as those of cross entropy. With weights the bound holds only for a mean
        # over class numbers, because no weight is larger than the sum by which the mean divides.
        self._known = {
            graph.place(node.outputs[role]): operand.bound
            for node in graph.nodes
            for role, operand in _outputs(node).items()
            if math.isfinite(operand.bound) and _keeps_bound(graph, node)
        }

    @property
    def nodes(self) -> list[Node]:
        """The nodes in order: all that write before all that read, so that one barrier is enough."""
        return [*self._looks, *self._proofs]

    def product(self, x: str, dy: str, origin: str) -> None:
        """Bound ``x' dy``."""
        inputs = {"x": self._of(x)}
        place, value = self.graph.place(dy), self.graph.values[dy]
        if place not in self._known:
            inputs["dy"] = self._of(dy)
        self._bounded.add(place)
        self._bound(inputs, value.size // value.shape[-1], origin, self._known.get(place, 1.0))

    def sums(self, dy: str, origin: str) -> None:
        """Bound the sums over the rows of ``dy``."""
        place, value = self.graph.place(dy), self.graph.values[dy]
        if place not in self._bounded:
            self._bounded.add(place)
            inputs = {} if place in self._known else {"dy": self._of(dy)}
            self._bound(inputs, value.size // value.shape[-1], origin, self._known.get(place, 1.0))

    def itself(self, gradient: str, origin: str) -> None:
        """Bound a gradient that lies in memory already."""
        self._bound({"dy": self._of(gradient)}, 1, origin)

    def _bound(self, inputs: dict[str, str], rows: int, origin: str, dy_bound: float = 1.0) -> None:
        effects = f"bound of {origin}, {len(self._proofs)}"
        node = Node(
            "bound_gradient",
            {**inputs, "bounded": "step.bounded"},
            {},
            {"rows": rows, "dy_bound": dy_bound},
            updates=("bounded",),
            effects=effects,
            phase="backward",
            origin=origin,
        )
        self._proofs.append(node)
        self.graph = replace(self.graph, effects=(*self.graph.effects, effects))

    def _of(self, name: str) -> str:
        """The largest magnitudes of a value, computed only once."""
        place = self.graph.place(name)
        if place not in self._largest:
            made = largest_value(self.graph, name)
            self.graph = self.graph.with_value(made)
            self._looks.append(Node("largest", {"x": name}, {"y": made.name}, phase="backward", origin="check"))
            self._largest[place] = made.name
        return self._largest[place]
