"""The table that ``Layer.summary`` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from gradring import _core
from gradring.errors import reason
from gradring.ir import Builder, Node, Traceable
from gradring.tables import Table

__all__ = ["summarize"]


class Layer(Traceable, Protocol):
    """The methods of a layer that the table uses."""

    @property
    def shown_by_parts(self) -> bool: ...

    def children(self) -> Mapping[str, Layer]: ...


def _leaves(
    layer: Layer, tracer: Builder, inputs: tuple[str, ...], path: str, rows: list[tuple[str, ...]], totals: list[int]
) -> str:
    if layer.shown_by_parts:
        for name, child in layer.children().items():
            inputs = (_leaves(child, tracer, inputs, f"{path}.{name}" if path else name, rows, totals),)
        return inputs[0]
    before = len(tracer.graph.nodes)
    known = set(tracer.graph.values)
    y = tracer.call(path, layer, *inputs) if path else layer.trace(tracer, *inputs)
    made = [v for n, v in tracer.graph.values.items() if n not in known]
    parameters = sum(math.prod(spec.shape) for spec in layer.named_parameters().values())
    flops = sum(_flops(tracer, node) for node in tracer.graph.nodes[before:])
    memory = 4 * (sum(v.size for v in made if v.kind == "temp" and v.within is None) + parameters)
    rows.append(
        (f"{path}: {layer}" if path else str(layer), str(tracer.shape(y)), str(parameters), str(flops), str(memory))
    )
    for i, number in enumerate((parameters, flops, memory)):
        totals[i] += number
    return y


def _flops(tracer: Builder, node: Node) -> int:
    """The FLOPs of a node, as the schema of its op counts them. Resources, such as Python functions, count for nothing."""
    values = {role: tracer.graph.values[name] for role, name in (*node.inputs.items(), *node.outputs.items())}
    operands = [(role, None if v.kind == "step" else v.dtype, v.shape) for role, v in values.items()]
    attributes = {name: 0 if callable(value) else value for name, value in node.attributes.items()}
    try:
        return int(_core.count_flops(node.op, operands, attributes))
    except (TypeError, ValueError, RuntimeError) as error:  # the layer is a user's, and has built a graph that is wrong
        raise ValueError(f"[summary] {node.origin}: {node.op}: {reason(error)}") from None


def summarize(model: Layer, input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]]) -> Table:
    """One line per layer. FLOPs are those of the forward pass, and bytes those of its outputs and parameters in float32."""
    tracer = Builder(training=False)
    rows: list[tuple[str, ...]] = []
    totals = [0, 0, 0]
    shapes = input_shape if isinstance(input_shape, Mapping) else {model.input_names[0]: input_shape}
    if shapes.keys() != set(model.input_names):
        raise ValueError(f"[summary] {model} has the inputs {list(model.input_names)}, got shapes of {list(shapes)}")
    # The input is integers, so that an Embedding may come first; other layers cast them to floats.
    inputs = tuple(tracer.input(name, tuple(shapes[name]), "int64") for name in model.input_names)
    _leaves(model, tracer, inputs, "", rows, totals)
    rows.append(("total", "", *map(str, totals)))
    return Table.of(("layer", "output", "parameters", "FLOP", "bytes"), rows, left=(0, 1))
