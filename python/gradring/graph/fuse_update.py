"""Fusing the optimizer into the products that make the weights' gradients.

``dw = x' dy`` followed by the update of ``w`` writes the gradient to memory, reads it back, and goes over the weight and
its state once more. Here each tile of ``dw`` updates its tile of ``w`` while it is in the first cache. It must come
after everything that reads the old ``w``; all these products stand at the end of the step, where none waits for
another.
"""

from __future__ import annotations

from collections.abc import Mapping

from gradring.graph.ir import Graph, Node, Value

__all__ = ["fuse_updates"]

_OPTIMIZERS = frozenset({"sgd", "adam", "adamw"})


def fuse_updates(graph: Graph, layout: Mapping[str, int]) -> Graph:
    """Replace the optimizer's pass over the flat arenas by updates of each parameter, fused where a product makes it.

    ``layout`` gives each parameter's offset in the arenas, in elements. The graph must end with the optimizer's node,
    its gradients whole (not clipped, not sums of several batches). Afterwards the gradients of the fused parameters
    are nowhere in memory.
    """
    update = graph.nodes[-1]
    if update.op not in _OPTIMIZERS:
        raise ValueError(f"[fuse_updates] the graph ends with {update.op}: must end with an optimizer")
    makers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.outputs.values():
            makers.setdefault(name, []).append(node)
    kept: list[Node] = []
    fused: list[Node] = []
    alone: list[Node] = []
    parameters = [value for value in graph.values.values() if value.kind == "param" and value.name in layout]
    products: dict[int, Value] = {}
    for value in parameters:
        made = makers.get(_gradient(value), [])
        if len(made) == 1 and made[0].op == "linear_dw":
            products[id(made[0])] = value
    for node in graph.nodes[:-1]:
        if id(node) in products:
            graph, merged = _merge(graph, node, products[id(node)], update, layout)
            fused.append(merged)
        else:
            kept.append(node)
    merged_names = {value.name for value in products.values()}
    for value in parameters:
        if value.name not in merged_names and _gradient(value) in makers:
            graph, single = _single(graph, value, update, layout)
            alone.append(single)
    return graph.with_nodes([*kept, *fused, *alone])


def _gradient(value: Value) -> str:
    return f"d({value.name})"


def _states(graph: Graph, value: Value, update: Node, layout: Mapping[str, int]) -> tuple[Graph, dict[str, str]]:
    """Views of the parameter's part of each of the optimizer's states, by role."""
    roles = {role: name for role, name in update.inputs.items() if role not in ("param", "gradient")}
    views: dict[str, str] = {}
    for role, name in roles.items():
        view = Value(f"{name}[{value.name}]", value.shape, within=name, offset=layout[value.name])
        graph = graph.with_value(view)
        views[role] = view.name
    return graph, views


def _merge(graph: Graph, node: Node, value: Value, update: Node, layout: Mapping[str, int]) -> tuple[Graph, Node]:
    graph, states = _states(graph, value, update, layout)
    inputs = {**node.inputs, "param": value.name, **states}
    outputs = {**node.outputs, "param": value.name}
    return graph, Node(f"linear_dw_{update.op}", inputs, outputs, update.attributes)


def _single(graph: Graph, value: Value, update: Node, layout: Mapping[str, int]) -> tuple[Graph, Node]:
    graph, states = _states(graph, value, update, layout)
    inputs = {"param": value.name, "gradient": _gradient(value), **states}
    return graph, Node(update.op, inputs, {"param": value.name}, update.attributes)
