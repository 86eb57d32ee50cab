"""From a model to the graph of a whole step: the passes in order, and what comes after the gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradring.graph.differentiate import differentiate, with_loss
from gradring.graph.fuse import fuse_activations, fuse_backward
from gradring.graph.fuse_update import fuse_updates
from gradring.graph.ir import Graph, Node, Value
from gradring.graph.ownership import sum_in_parts
from gradring.graph.trace import trace

if TYPE_CHECKING:
    from gradring.nn.layer import Layer

__all__ = ["accumulated", "evaluate_graph", "predict_graph", "train_graph", "with_update"]


def predict_graph(model: Layer, input_shape: tuple[int, ...]) -> tuple[Graph, str]:
    """The forward pass alone, and its output's name: the input's, or that of a view of it, if the model does nothing."""
    graph, output = trace(model, input_shape, training=False)
    return fuse_activations(graph, output, training=False), output


def evaluate_graph(model: Layer, input_shape: tuple[int, ...], loss: str) -> Graph:
    """The forward pass and the loss."""
    graph, output = trace(model, input_shape, training=False)
    return with_loss(fuse_activations(graph, output, training=False), output, loss, gradient=False)


def train_graph(
    model: Layer,
    input_shape: tuple[int, ...],
    loss: str,
    *,
    elements: int,
    optimizer: Any,
    clip_norm: float | None = None,
    accumulate: bool = False,
    layout: Mapping[str, int] | None = None,
) -> Graph:
    """Forward, loss, backward, update. ``elements`` is the size of the flat arena of parameters.

    ``layout``, the parameters' offsets in it, asks for updates that are fused into the products, and so for no
    gradients in memory; with clipping or accumulation, which need them, it changes nothing.
    """
    graph, output = trace(model, input_shape, training=True)
    graph = fuse_activations(graph, output, training=True)
    graph = with_loss(graph, output, loss, gradient=True, sums=accumulate)
    graph = sum_in_parts(fuse_backward(differentiate(graph, output)))
    if accumulate:
        graph = accumulated(graph)
    graph = with_update(graph, elements, optimizer, clip_norm=clip_norm, sums=accumulate)
    return graph if layout is None or accumulate or clip_norm is not None else fuse_updates(graph, layout)


def accumulated(graph: Graph) -> Graph:
    """Gradients of this batch become temps, which are then added to the gradients of earlier batches."""
    values = dict(graph.values)
    sums: list[Node] = []
    rename: dict[str, str] = {}
    for name, value in graph.values.items():
        if value.kind != "grad":
            continue
        rename[name] = f"{name} of this batch"
        values[rename[name]] = replace(value, name=rename[name], kind="temp")
        sums.append(Node("accumulate", {"gradient": rename[name]}, {"sum": name}))

    def renamed(names: Mapping[str, str]) -> dict[str, str]:
        return {role: rename.get(name, name) for role, name in names.items()}

    nodes = [replace(node, inputs=renamed(node.inputs), outputs=renamed(node.outputs)) for node in graph.nodes]
    return Graph(values, (*nodes, *sums))


def with_update(graph: Graph, elements: int, optimizer: Any, *, clip_norm: float | None, sums: bool) -> Graph:
    """Add the clipping of the gradients' norm and the optimizer's step over the flat arenas."""
    if "gradients" not in graph.values:
        graph = graph.with_value(Value("gradients", (elements,), "grad"))
    graph = graph.with_value(Value("parameters", (elements,), "param"))
    if clip_norm is not None:
        graph = graph.with_value(Value("squares", (1,), dtype="float64"))
        graph = graph.with_node(Node("sum_of_squares", {"gradient": "gradients"}, {"sum": "squares"}))
        attributes = {"limit": float(clip_norm), "sums": sums}
        graph = graph.with_node(Node("clip", {"sum": "squares"}, {}, attributes))
    inputs = {"param": "parameters", "gradient": "gradients"}
    for name in optimizer.state_names:
        graph = graph.with_value(Value(f"state.{name}", (elements,), "state"))
        inputs[name] = f"state.{name}"
    attributes = {**optimizer.hyperparameters(), "sums": sums}
    return graph.with_node(Node(optimizer.kind, inputs, {"param": "parameters"}, attributes))
