"""From a model to the graph of a whole step: the passes in order, and what comes after the gradients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gradring.graph.bound import checked_gradients
from gradring.graph.differentiate import differentiate, with_loss
from gradring.graph.fuse import fuse_activations, fuse_backward
from gradring.graph.fuse_update import fuse_updates
from gradring.graph.meaning import promised
from gradring.graph.ownership import sum_in_parts
from gradring.graph.schema import schema_of
from gradring.graph.spec import check
from gradring.ir import Graph, Input, Layout, Node, Traceable, Value, trace

Inputs = tuple[int, ...] | Mapping[str, Input]  # as ``trace`` takes them

__all__ = [
    "accumulated",
    "checked",
    "evaluate_graph",
    "predict_graph",
    "train_graph",
    "with_buffer_updates",
    "with_update",
    "without_buffer_updates",
]


def checked(graph: Graph) -> Graph:
    """The graph itself; with ``GRADRING_CHECK=1`` in the environment, after ``spec.check`` has found it legal."""
    if os.environ.get("GRADRING_CHECK") == "1":
        check(graph)
    return graph


def predict_graph(
    model: Traceable, inputs: Inputs, *, dtype: str = "float32", layout: Layout | None = None
) -> tuple[Graph, str]:
    """The forward pass alone, and its output's name: the input's, or that of a view of it, if the model does nothing."""
    graph, output = trace(model, inputs, training=False, dtype=dtype, layout=layout)
    graph = fuse_activations(checked(promised(graph)), output, training=False)
    return checked(replace(graph, mode="predict")), output


def evaluate_graph(
    model: Traceable, inputs: Inputs, loss: str, *, dtype: str = "float32", layout: Layout | None = None
) -> Graph:
    """The forward pass and the loss."""
    graph, output = trace(model, inputs, training=False, dtype=dtype, layout=layout)
    graph = checked(fuse_activations(checked(promised(graph)), output, training=False))
    return checked(replace(promised(with_loss(graph, output, loss, gradient=False)), mode="evaluate"))


def train_graph(
    model: Traceable,
    inputs: Inputs,
    loss: str,
    *,
    optimizer: Any,
    dtype: str = "float32",
    layout: Layout | None = None,
    clip_norm: float | None = None,
    accumulate: bool = False,
    fuse_update: bool = False,
    check_finite: bool = False,
) -> Graph:
    """Forward, loss, backward, update, computed in ``dtype`` over parameters that lie as ``layout`` says.

    ``fuse_update`` asks for updates that are fused into the products, and so for no gradients in memory; with clipping
    or accumulation, which need them, it changes nothing. ``check_finite`` asks for a step that changes nothing if one of
    its gradients is infinite or NaN.
    """
    graph, output = trace(model, inputs, training=True, dtype=dtype, layout=layout)
    graph, moves = without_buffer_updates(graph)
    graph = checked(fuse_activations(checked(promised(graph)), output, training=True))
    graph = checked(promised(with_loss(graph, output, loss, gradient=True, sums=accumulate)))
    graph = checked(promised(differentiate(graph, output)))
    graph = checked(fuse_backward(graph))
    graph = checked(sum_in_parts(graph))
    if accumulate:
        graph = checked(promised(accumulated(graph)))
    graph = with_update(graph, optimizer, clip_norm=clip_norm, sums=accumulate)
    whole = checked(promised(replace(with_buffer_updates(graph, moves), mode="train")))
    if clip_norm is not None:  # clipping looks at every gradient anyway
        return whole
    graph = replace(graph, mode="train", promise=whole.promise)
    if not fuse_update or accumulate:
        if not check_finite:
            return whole
        return checked(promised(with_buffer_updates(checked_gradients(graph, "last"), moves)))
    graph = with_buffer_updates(fuse_updates(graph, check_finite=check_finite), moves)
    return promised(checked(graph))


def without_buffer_updates(graph: Graph) -> tuple[Graph, list[Node]]:
    """The graph without the nodes that change buffers, and these nodes: they must come last in a step, so that no check
    can stop it behind them."""
    moves = [node for node in graph.nodes if node.phase == "update"]
    return graph.with_nodes(node for node in graph.nodes if node.phase != "update"), moves


def with_buffer_updates(graph: Graph, moves: list[Node]) -> Graph:
    """The graph with these nodes at its end."""
    return graph.with_nodes([*graph.nodes, *moves])


def accumulated(graph: Graph) -> Graph:
    """Gradients of this micro-batch become temps. The first micro-batch of an update copies them to the sums, later
    ones add to the sums."""
    values = dict(graph.values)
    sums: list[Node] = []
    rename: dict[str, str] = {}
    for name, value in graph.values.items():
        if value.kind != "grad" or value.within is None:
            continue
        rename[name] = f"{name} of this batch"
        values[rename[name]] = replace(value, name=rename[name], kind="temp", within=None, offset=0)
        finite = {"finite": "step.finite"}
        sums.append(
            Node("copy", {"x": rename[name]}, {"y": name}, phase="backward", when="first", origin="accumulation")
        )
        inputs = {"sum": name, "gradient": rename[name], **finite}
        sums.append(
            Node("accumulate", inputs, {}, updates=("sum",), phase="backward", when="later", origin="accumulation")
        )

    def renamed(names: Mapping[str, str]) -> dict[str, str]:
        return {role: rename.get(name, name) for role, name in names.items()}

    nodes = [replace(node, inputs=renamed(node.inputs), outputs=renamed(node.outputs)) for node in graph.nodes]
    return replace(graph, values=values, nodes=(*nodes, *sums))


def with_update(graph: Graph, optimizer: Any, *, clip_norm: float | None, sums: bool) -> Graph:
    """Add the clipping of the gradients' norm and the optimizer's step over the flat arenas."""
    parameters = graph.values["parameters"]
    elements, dtype = parameters.size, parameters.dtype
    if "gradients" not in graph.values:
        graph = graph.with_value(Value("gradients", (elements,), "grad", dtype))
    graph = graph.with_step("learning_rate", "finite")
    step = {"lr": "step.learning_rate", "finite": "step.finite"}
    if sums:
        step["weight"] = "step.total_weight"
    if clip_norm is not None:
        graph = graph.with_value(Value("squares", (1,), dtype="float64")).with_step("clip", "gradient_norm")
        squares = Node(
            "sum_of_squares",
            {"gradient": "gradients"},
            {"sum": "squares"},
            phase="update",
            when="last",
            origin="clip_norm",
        )
        weight = {"weight": "step.total_weight"} if sums else {}
        clip = Node(
            "clip",
            {"sum": "squares", **weight},
            {"clip": "step.clip", "norm": "step.gradient_norm"},
            {"limit": float(clip_norm)},
            phase="update",
            effects="check of the gradients' norm",
            when="last",
            origin="clip_norm",
        )
        graph = graph.with_node(squares).with_node(clip)
        step["clip"] = "step.clip"
    op, attributes = optimizer.native()
    schema = schema_of(op)
    if schema is not None and "number" in schema.operands:
        graph = graph.with_step("number")
        step["number"] = "step.number"
    inputs = {"param": "parameters", "gradient": "gradients"}
    for number, name in enumerate(optimizer.state_names):
        state = Value(f"state.{name}", (elements,), "state", dtype, offset=number * elements)
        graph = graph.with_value(state)
        inputs[name] = state.name
    updates = ("param", *optimizer.state_names)
    update = Node(
        op,
        {**inputs, **step},
        {},
        attributes,
        updates=updates,
        phase="update",
        when="last",
        origin=str(optimizer),
    )
    return graph.with_node(update)
