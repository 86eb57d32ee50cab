"""Makes the graph of a whole step from a model: it applies the passes in order and adds clipping and the update."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from gradring.graph.bound import checked_gradients
from gradring.graph.deferred import with_deferred_buffers
from gradring.graph.differentiate import differentiate, gradient_name, with_loss
from gradring.graph.fuse import fuse_activations, fuse_backward
from gradring.graph.fuse_cuda import fuse_for_cuda
from gradring.graph.fuse_update import fuse_updates, updates_of
from gradring.graph.meaning import promised
from gradring.graph.mixed import with_narrow_operands, with_scaled_loss, with_wide_gradients
from gradring.graph.ownership import sum_in_parts
from gradring.graph.schema import schema_of
from gradring.graph.spec import check, check_nodes
from gradring.ir import Graph, Input, Layout, Node, Traceable, Value, trace
from gradring.ir.layout import padded

Inputs = tuple[int, ...] | Mapping[str, Input]  # the same as for ``trace``

__all__ = [
    "accumulated",
    "checked",
    "evaluate_graph",
    "predict_graph",
    "train_graph",
    "training_roots",
    "with_buffer_updates",
    "with_update",
    "without_buffer_updates",
]


def checked(graph: Graph) -> Graph:
    """Return the graph. With ``GRADRING_CHECK=1`` in the environment, ``spec.check`` checks it first."""
    if os.environ.get("GRADRING_CHECK") == "1":
        check(graph)
    return graph


def _traced(model: Traceable, inputs: Inputs, **options: Any) -> tuple[Graph, str]:
    """Do the same as ``trace``, for layers that may be a user's own."""
    return trace(model, inputs, check=check_nodes, **options)


def predict_graph(
    model: Traceable,
    inputs: Inputs,
    *,
    dtype: str = "float32",
    layout: Layout | None = None,
    operands: str | None = None,
    on_cpu: bool = True,
) -> tuple[Graph, str]:
    """The forward pass alone, and its output's name. If the model does nothing, that is the input, or a view of it. Without
    ``on_cpu`` the graph is one for a CUDA device."""
    graph, output = _traced(model, inputs, training=False, dtype=dtype, layout=layout)
    graph = with_narrow_operands(graph, operands)
    graph = fuse_activations(checked(promised(graph)), output, training=False)
    graph = graph if on_cpu else fuse_for_cuda(graph, output)
    return checked(replace(graph, mode="predict")), output


def evaluate_graph(
    model: Traceable,
    inputs: Inputs,
    loss: Any,
    *,
    dtype: str = "float32",
    layout: Layout | None = None,
    target: tuple[tuple[int, ...], str] | None = None,
    weight: int | None = None,
    operands: str | None = None,
    on_cpu: bool = True,
) -> Graph:
    """The forward pass and the loss; ``loss``, ``target`` and ``weight`` are those of ``with_loss``, and ``on_cpu`` is that of
    ``predict_graph``."""
    graph, output = _traced(model, inputs, training=False, dtype=dtype, layout=layout)
    graph = with_narrow_operands(graph, operands)
    graph = checked(fuse_activations(checked(promised(graph)), output, training=False))
    graph = with_loss(graph, output, loss, gradient=False, target=target, weight=weight)
    graph = promised(graph)
    return checked(replace(graph if on_cpu else fuse_for_cuda(checked(graph), output), mode="evaluate"))


def train_graph(
    model: Traceable,
    inputs: Inputs,
    loss: Any,
    *,
    optimizer: Any,
    dtype: str = "float32",
    layout: Layout | None = None,
    frozen: Collection[str] = (),
    clip_norm: float | None = None,
    accumulate: bool = False,
    sums: bool = False,
    fuse_update: bool = False,
    check_finite: bool = False,
    on_cpu: bool = True,
    target: tuple[tuple[int, ...], str] | None = None,
    weight: int | None = None,
    part: bool = False,
    operands: str | None = None,
) -> Graph:
    """Forward, loss, backward, update, computed in ``dtype`` over parameters that lie as ``layout`` says. Products read
    ``operands``, a dtype of 16 bits, if it is given.

    ``loss``, ``target`` and ``weight`` are those of ``with_loss``.

    Parameters that are ``frozen`` get neither gradients nor updates, and what only their gradients would need is not
    computed. ``accumulate`` adds the gradients of several batches up before an update, and ``sums``, as accumulation does,
    leaves gradients undivided by the weight of the batch until the update. ``fuse_update`` asks for updates that are fused
    into the products, and so for no gradients in memory; with clipping or accumulation, which need them, it changes nothing.
    ``check_finite`` asks for a step that changes nothing if one of its gradients is infinite or NaN. ``part`` says that the
    rows are a part of a larger batch. Without ``on_cpu`` no product is cut for the lanes of a CPU, and the
    step is fused for such a device.
    With ``operands`` of float16 the loss is scaled, and an update whose gradients are infinite or NaN is skipped; buffers then
    stay what they were before the first of its micro-batches.
    """
    scaled = operands == "float16"
    graph, output = _traced(model, inputs, training=True, dtype=dtype, layout=layout, part=part)
    graph, moves = without_buffer_updates(with_narrow_operands(graph, operands))
    graph = checked(fuse_activations(checked(promised(graph)), output, training=True))
    sums = sums or accumulate
    graph = with_loss(graph, output, loss, gradient=True, sums=sums, target=target, weight=weight)
    if scaled:
        graph = with_scaled_loss(graph, gradient_name(output))
    graph = checked(promised(graph))
    layout = _layout_of(graph, layout)
    graph = differentiate(graph, output, layout.without(frozen))
    graph = checked(promised(graph if operands is None else with_wide_gradients(graph)))
    graph = checked(fuse_backward(graph))
    if on_cpu:
        graph = checked(sum_in_parts(graph))
    if accumulate:
        graph = checked(promised(accumulated(graph)))
    if not on_cpu:
        graph = checked(fuse_for_cuda(graph, output))
    divided = sums and not loss.summed
    graph = with_update(
        graph, optimizer, clip_norm=clip_norm, sums=divided, layout=layout, frozen=frozen, scaled=scaled
    )
    # Only a group's check shows whether the group is skipped.
    moved = with_deferred_buffers(graph, moves) if scaled and accumulate else with_buffer_updates(graph, moves)
    whole = checked(promised(replace(moved, mode="train")))
    if clip_norm is not None or scaled:  # both check every gradient anyway
        return whole
    graph = replace(graph, mode="train", promise=whole.promise)
    if not fuse_update or accumulate:
        if not check_finite:
            return whole
        return checked(promised(with_buffer_updates(checked_gradients(graph, "last", len(updates_of(graph))), moves)))
    graph = with_buffer_updates(fuse_updates(graph, check_finite=check_finite), moves)
    return promised(checked(graph))


def without_buffer_updates(graph: Graph) -> tuple[Graph, list[Node]]:
    """Returns the graph without the nodes that change buffers, and these nodes. They must come last in a step, because
    no check may stop the step after them."""
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


def with_update(
    graph: Graph,
    optimizer: Any,
    *,
    clip_norm: float | None,
    sums: bool,
    layout: Layout | None = None,
    frozen: Collection[str] = (),
    scaled: bool = False,
) -> Graph:
    """Add the clipping of the gradients' norm and the optimizer's steps: one over the flat arenas or, if parameters are
    frozen or in groups, one for each range of neighbours in the same group. ``scaled`` gradients are those of a loss that was
    multiplied by its scale."""
    layout = _layout_of(graph, layout)
    trained = layout.without(frozen)  # the layout of gradients and states
    numbers = dict(zip(trained.shapes, optimizer.assigned(list(layout.shapes), frozen), strict=True))
    graph = training_roots(graph, optimizer, trained).with_step("learning_rate", "finite")
    step = {"lr": "step.learning_rate", "finite": "step.finite"}
    if sums:
        step["weight"] = "step.total_weight"
    if clip_norm is not None or scaled:
        graph = _clipped(graph, clip_norm, sums, scaled)
        step["clip"] = "step.clip"
    for number, names in _runs(graph, numbers):
        graph = _with_update_of(graph, optimizer, number, names, trained, step)
    return graph


def training_roots(graph: Graph, optimizer: Any, trained: Layout) -> Graph:
    """Add the roots of the gradients, if there are none, and of the optimizer's states; all have the layout ``trained``."""
    dtype = graph.values["parameters"].dtype
    if "gradients" not in graph.values:
        graph = graph.with_value(Value("gradients", (trained.elements,), "grad", dtype))
    for number, name in enumerate(optimizer.state_names):
        offset = number * trained.elements
        graph = graph.with_value(Value(f"state.{name}", (trained.elements,), "state", dtype, offset=offset))
    return graph


def _layout_of(graph: Graph, layout: Layout | None) -> Layout:
    """Where the parameters lie; without a ``layout``, as the graph has them."""
    if layout is not None:
        return layout
    views = graph.views("parameters")
    elements = graph.values["parameters"].size
    return Layout({v.name: v.shape for v in views}, {v.name: v.offset for v in views}, elements)


def _runs(graph: Graph, numbers: Mapping[str, int]) -> Iterator[tuple[int, list[str]]]:
    """The ranges of neighbouring parameters in the same group: the group's number, and their names. Parameters that no
    layer reads are left out where there are several ranges."""
    known = [name for name in numbers if name in graph.values]
    run: list[str] = []
    for name in known:
        if run:
            before = graph.values[run[-1]]
            beside = graph.values[name].offset == before.offset + padded(before.size)
            if numbers[run[-1]] != numbers[name] or not beside:
                yield numbers[run[0]], run
                run = []
        run.append(name)
    if run or not numbers:  # a model without parameters has an update too, which does nothing
        yield (numbers[run[0]] if run else 0), run


def _span(graph: Graph, names: list[str]) -> tuple[int, int]:
    """The begin and the end of these neighbours in the arena of the parameters."""
    if not names:
        return 0, graph.values["parameters"].size
    last = graph.values[names[-1]]
    return graph.values[names[0]].offset, last.offset + padded(last.size)


def _clipped(graph: Graph, clip_norm: float | None, sums: bool, scaled: bool) -> Graph:
    """Add the factor that brings the gradients' norm below ``clip_norm``, and that undoes the loss's scale."""
    origin = "loss_scale" if clip_norm is None else "clip_norm"
    graph = graph.with_value(Value("squares", (1,), dtype="float64")).with_step("clip", "gradient_norm")
    squares = Node(
        "sum_of_squares",
        {"gradient": "gradients"},
        {"sum": "squares"},
        phase="update",
        when="last",
        origin=origin,
    )
    weight = {"weight": "step.total_weight"} if sums else {}
    if scaled:
        graph, weight = graph.with_step("loss_scale"), {**weight, "scale": "step.loss_scale"}
    clip = Node(
        "clip",
        {"sum": "squares", **weight},
        {"clip": "step.clip", "norm": "step.gradient_norm"},
        {} if clip_norm is None else {"limit": float(clip_norm)},
        phase="update",
        effects="check of the gradients' norm",
        when="last",
        origin=origin,
    )
    return graph.with_node(squares).with_node(clip)


def _with_update_of(
    graph: Graph, optimizer: Any, number: int, names: list[str], trained: Layout, step: Mapping[str, str]
) -> Graph:
    """Add the optimizer's step for one range of parameters, which are in the group ``number``."""
    rule = optimizer.rule(number)
    op, attributes = optimizer.native_of(number)
    schema = schema_of(op)
    if schema is not None and "number" in schema.operands:
        graph = graph.with_step("number")
        step = {**step, "number": "step.number"}
    begin, end = _span(graph, names)
    whole = {"param": "parameters", "gradient": "gradients", **{name: f"state.{name}" for name in rule.state_names}}
    inputs: dict[str, str] = {}
    everything = end - begin == graph.values["parameters"].size
    alone = len(names) == 1 and not everything  # one parameter keeps its shape; several are a flat range
    for role, root in whole.items():
        if not alone and end - begin == graph.values[root].size:
            inputs[role] = root
        elif alone and role in ("param", "gradient"):
            inputs[role] = names[0] if role == "param" else f"d({names[0]})"
        else:
            offset = begin if role == "param" else trained.offsets[names[0]]
            graph, inputs[role] = _part(graph, root, names, offset, end - begin)
    if inputs["gradient"] not in graph.values:  # the loss does not depend on this parameter
        return graph
    updates = ("param", *rule.state_names)
    origin = str(rule)
    return graph.with_node(
        Node(op, {**inputs, **step}, {}, attributes, updates, phase="update", when="last", origin=origin)
    )


def _part(graph: Graph, root: str, names: list[str], begin: int, size: int) -> tuple[Graph, str]:
    """A view of these neighbours' part of a root: of one parameter's shape, or flat."""
    of, alone = graph.values[root], len(names) == 1
    name = f"{root}[{names[0]}]" if alone else f"{root}[{names[0]} ... {names[-1]}]"
    shape = graph.values[names[0]].shape if alone else (size,)
    view = Value(name, shape, of.kind, of.dtype, within=root, offset=begin, span=not alone)
    return graph.with_value(view), name
