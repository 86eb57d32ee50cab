"""Digests of the results that a graph computes: a rewriting must not change them.

Each value's meaning is the expression that makes it, down to the fields of the batch, the parameters and the fields of
the step record. Fused operations mean what their parts mean: ``linear[relu]`` is relu of linear, an update inside a
product is the update by that product. So the meaning of a graph is the same before and after a fusion, and differs if
a node reads, writes or omits anything else than before. (This is translation validation: Pnueli, Siegel and Singerman,
1998.) The order in which a sum is added up is not part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gradring.graph.flow import moments_of
from gradring.graph.schema import Part, Schema, fail, schema_of
from gradring.ir import NARROW, Graph, Node
from gradring.ops.activation import EITHER_SOURCE

__all__ = ["check_meaning", "meaning_of", "promised"]

_Place = tuple[str, int, int]

def promised(graph: Graph) -> Graph:
    """The graph with the promise that later passes keep: to compute what it computes now."""
    return replace(graph, promise=replace(graph, promise=None))


def check_meaning(graph: Graph) -> None:
    """Raise ``ValueError`` if the graph computes something else than was promised, and name a result that differs."""
    if graph.promise is None:
        return
    promise, results = graph.promise.known("meaning", meaning_of), meaning_of(graph)
    for number, now in enumerate(results):
        then = promise[number if len(promise) == len(results) else 0]
        for name in [*then, *now]:
            added = name.startswith("effect ") and name not in then  # the fused graph promises what a fusion adds
            if then.get(name) != now.get(name) and not added:
                at, node, role = _maker(graph, name)
                raise fail(at, node, role, f"result {name!r}", then.get(name, "none"), now.get(name, "none"))


def _maker(graph: Graph, name: str) -> tuple[int, Node, str]:
    """The node to name in an error: the last one that writes the value, or the graph's last one if none does."""
    if name in graph.values:
        root, begin, end = graph.place(name)
        for number, node in reversed(list(enumerate(graph.nodes))):
            for role, made in node.written():
                owner, first, past = graph.place(made)
                if owner == root and first < end and begin < past:
                    return number, node, role
    return len(graph.nodes) - 1, graph.nodes[-1] if graph.nodes else Node("-", {}, {}), "-"


def meaning_of(graph: Graph) -> list[dict[str, str]]:
    """For each kind of micro-batch, or each route, a digest of each result. Results are values that outlast the step, values
    that nodes with effects read, and, in a graph without a loss, values that no node reads."""
    meanings = []
    for moment in moments_of(graph):
        results: dict[str, str] = {}
        reader = _Reader(graph)
        for node in graph.nodes:
            if node.when in moment:
                if node.effects:
                    results[f"effect {node.effects}"] = reader.inputs(node)
                reader.run(node)
        last = "last" in moment and any(node.phase == "update" for node in graph.nodes)
        for name in _results(graph, gradients=not last):
            results[name] = reader.read(name)
        meanings.append(results)
    return meanings


def _results(graph: Graph, *, gradients: bool) -> list[str]:
    if not any(node.phase == "check" for node in graph.nodes):
        read = {graph.root(name) for node in graph.nodes for name in node.inputs.values()}
        made = [name for node in graph.nodes for role, name in node.outputs.items() if role == "y"]
        return sorted(name for name in made if graph.root(name) not in read)
    kinds = ("param", "buffer", "state", *(("grad",) if gradients else ()))
    arrays = [v.name for v in graph.values.values() if v.kind in kinds and _is_parameter(graph, v.name)]
    return arrays + sorted(name for node in graph.nodes for name in node.outputs.values() if name.startswith("step."))


def _is_parameter(graph: Graph, name: str) -> bool:
    """Whether a value is a parameter itself. Views of states or of several parameters do not count, because only
    some passes make them; the roots and the parameters represent them."""
    value = graph.values[name]
    if value.span:
        return False
    return value.within is None if value.kind == "state" else value.within is not None


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _cast(x: str, dtype: str) -> str:
    """The meaning of a cast."""
    return _digest("cast", "y", [("dtype", dtype)], [("x", x)])


def _summed(x: str) -> str:
    return _digest("column_sums", x)


def _meant(node: Node) -> dict[str, Any]:
    """The attributes that decide what the node computes, without those that only say how."""
    schema = schema_of(node.op)
    known = {} if schema is None else schema.attributes
    return {name: value for name, value in node.attributes.items() if not known.get(name, {}).get("method")}


class _Reader:
    """The meaning of the value in each place of memory, while the nodes run in order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.held: dict[_Place, str] = {}
        values = [v for v in graph.values.values() if v.kind == "param" and v.within and not v.span]
        self.parameters = {graph.place(v.name)[1:] for v in values}
        self.either: set[str] = set()  # the meanings of results of activations whose derivative reads input or output

    def read(self, name: str) -> str:
        return self.at(self.graph.place(name))

    def at(self, place: _Place) -> str:
        if place in self.held:
            return self.held[place]
        root, begin, end = place
        inside = sorted((p, d) for p, d in self.held.items() if p[0] == root and begin <= p[1] and p[2] <= end)
        return _digest("parts", place, inside) if inside else _digest("initial", place)

    def inputs(self, node: Node) -> str:
        attributes = sorted((key, value) for key, value in _meant(node).items() if key != "function")
        return _digest(node.op, attributes, sorted((role, self.read(name)) for role, name in node.inputs.items()))

    def write(self, name: str, digest: str) -> None:
        self.held[self.graph.place(name)] = digest

    def run(self, node: Node) -> None:
        schema = schema_of(node.op)
        if "param" in node.updates:
            return self._update(node, schema)
        for places in self._pieces(node, schema):
            inputs = {role: self.at(places[role]) for role in node.inputs}
            made = self._outputs(node, schema, inputs)
            for role in node.updates:
                made[role] = _digest(node.op, role, sorted(_meant(node).items()), sorted(inputs.items()))
            for role, digest in made.items():
                if role in node.updates or (role in node.outputs and schema is not None and role in schema.outputs):
                    self.held[places[role]] = digest

    def _pieces(self, node: Node, schema: Schema | None) -> list[dict[str, _Place]]:
        """The places of a node's operands; if the op is elementwise and they span several arrays, those of each array."""
        names = {**node.inputs, **node.outputs}
        whole = {role: self.graph.place(name) for role, name in names.items()}
        spans = [role for role, name in names.items() if self.graph.values[name].span]
        if schema is None or not schema.elementwise or not spans:
            return [whole]
        root, first, past = whole[spans[0]]
        parts = [self.graph.place(view.name)[1:] for view in self.graph.views(root)]
        return [
            {
                role: place if names[role].startswith("step.") else (place[0], place[1] + begin - first, place[1] + end - first)
                for role, place in whole.items()
            }
            for begin, end in parts
            if first <= begin and end <= past
        ]

    def _activated(self, kind: Any, x: str) -> str:
        made = _digest("activation", kind, x)
        if kind in EITHER_SOURCE:
            self.either.add(made)
        return made

    def _derived(self, kind: Any, dy: str, source: str | None) -> str:
        """The meaning of a derivative."""
        if kind in EITHER_SOURCE and source is not None and source not in self.either:
            source = self._activated(kind, source)
        return _digest("derivative", kind, dy, source)

    def _part(self, part: Part, attributes: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        """The meaning of an op that does only what other ops can do to their results."""
        x, kind = inputs[part.input], attributes.get(part.attribute or "")
        others = tuple(sorted((name, value) for name, value in attributes.items() if name != part.attribute))
        kind = (kind, others) if others else kind
        match part.kind:
            case "activation":
                return self._activated(kind, x)
            case "derivative":
                return self._derived(kind, x, inputs[part.other or ""])
            case "column_sums":
                return _summed(x)
            case _:  # a copy means what it copies
                return x

    def _outputs(self, node: Node, schema: Schema | None, inputs: Mapping[str, str]) -> dict[str, str]:
        attributes = _meant(node)
        part = schema.part if schema else None
        if part is not None:
            return {part.result: self._part(part, attributes, inputs)}
        if "function" in attributes:
            attributes["function"] = id(attributes["function"])
        made = self._plain(node, schema, attributes, dict(inputs))
        for role, operand in ({} if schema is None else schema.operands).items():
            if operand.column_sums_of in made:
                made[role] = _summed(made[operand.column_sums_of])
        for role, name in node.outputs.items():  # the op rounds such a result as a cast does, and last of all
            dtype = self.graph.values[name].dtype
            if dtype in NARROW and schema is not None and schema.operands[role].or_float32:
                made[role] = _cast(made[role], dtype)
        return made

    def _plain(
        self, node: Node, schema: Schema | None, attributes: dict[str, Any], inputs: dict[str, str]
    ) -> dict[str, str]:
        """The meaning of the op's own result, and then of what its epilogue makes of it."""
        after = schema and schema.epilogue
        derivative = schema and schema.derivative_epilogue
        kind = attributes.pop(after.attribute, None) if after else None
        slope = attributes.pop(derivative.attribute, None) if derivative else None
        source = inputs.pop(derivative.other or "", None) if derivative else None
        made = {
            role: _digest(node.op, role, sorted(attributes.items()), sorted(inputs.items()))
            for role in (*node.outputs, *((after.result,) if after else ()))
        }
        if after:
            plain = made[after.result]
            made[after.other or ""] = plain
            made[after.result] = self._activated(kind, plain) if kind else plain
        if derivative and slope:
            made[derivative.result] = self._derived(slope, made[derivative.result], source)
        return made

    def _product(self, node: Node, product: str) -> str:
        """The gradient that a fused update makes, as the separate product would."""
        schema = schema_of(product)
        assert schema is not None
        inputs = {role: self.read(node.inputs[role]) for role in schema.inputs}
        (made,) = schema.outputs
        return _digest(product, made, [], sorted(inputs.items()))

    def _update(self, node: Node, schema: Schema | None) -> None:
        """An optimizer's node: over the flat arenas it means the same as one for each parameter."""
        product, op = (schema and schema.fuses) or (None, node.op)
        arrays = {
            role: self.graph.place(name)
            for role, name in node.inputs.items()
            if role == "gradient" or role in node.updates
        }
        steps = sorted(
            (role, self.read(name))
            for role, name in node.inputs.items()
            if name.startswith("step.")
            and role != "bounded"  # the field `bounded` chooses a route and changes no result
        )
        _, first, past = arrays["param"]
        made: dict[_Place, str] = {}
        for begin, end in sorted(self.parameters):
            if begin < first or end > past:
                continue
            pieces = {r: (root, b + begin - first, b + end - first) for r, (root, b, _) in arrays.items()}
            values = {role: self.at(place) for role, place in pieces.items()}
            if product is not None:
                values["gradient"] = self._product(node, product)
            result = _digest(op, sorted(_meant(node).items()), sorted(values.items()), steps)
            made |= {pieces[role]: _digest(role, result) for role in node.updates}
        self.held |= made
