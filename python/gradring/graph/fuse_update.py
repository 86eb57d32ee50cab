"""Fusing the optimizer into the products that make the weights' gradients.

``dw = x' dy`` followed by the update of ``w`` writes the gradient to memory, reads it back, and goes over the weight and
its state once more. Here each tile of ``dw`` updates its tile of ``w`` while it is in the first cache. It must come
after everything that reads the old ``w``; all these products stand at the end of the step, where none waits for
another.
"""

from __future__ import annotations

from dataclasses import replace

from gradring.graph.differentiate import gradient_name
from gradring.ir import Graph, Node, Value

__all__ = ["fuse_updates"]

_OPTIMIZERS = frozenset({"sgd", "adam", "adamw"})


def fuse_updates(graph: Graph) -> Graph:
    """Replace the optimizer's pass over the flat arenas by updates of each parameter, fused where a product makes it.

    The graph must end with the optimizer's node, its gradients whole (not clipped, not sums of several batches).
    Afterwards the gradients of the fused parameters are nowhere in memory.
    """
    update = graph.nodes[-1]
    if update.op not in _OPTIMIZERS:
        raise ValueError(f"[fuse_updates] the graph ends with {update.op}: must end with an optimizer")
    kept: list[Node] = []
    fused: list[Node] = []
    alone: list[Node] = []
    parameters = graph.views(update.inputs["param"])
    products: dict[int, Value] = {}
    for value in parameters:
        made = _makers(graph, value)
        if len(made) == 1 and made[0].op == "linear_dw":
            products[id(made[0])] = value
    for node in graph.nodes[:-1]:
        if id(node) in products:
            graph, merged = _merge(graph, node, products[id(node)], update)
            fused.append(merged)
        else:
            kept.append(node)
    merged_names = {value.name for value in products.values()}
    for value in parameters:
        if value.name not in merged_names and _makers(graph, value):
            graph, single = _single(graph, value, update)
            alone.append(single)
    return graph.with_nodes([*kept, *fused, *alone])


def _makers(graph: Graph, parameter: Value) -> list[Node]:
    """The nodes that write the parameter's gradient."""
    name = gradient_name(parameter.name)
    return list(graph.writers(*graph.place(name))) if name in graph.values else []


def _parts(graph: Graph, value: Value, update: Node) -> tuple[Graph, dict[str, str]]:
    """The update's inputs for one parameter: views of the states, and the values of the step."""
    parts: dict[str, str] = {}
    for role, name in update.inputs.items():
        if graph.values[name].kind == "state":
            view = Value(f"{name}[{value.name}]", value.shape, "state", value.dtype, within=name, offset=value.offset)
            graph, name = graph.with_value(view), view.name
        parts[role] = name
    return graph, {**parts, "param": value.name}


def _merge(graph: Graph, node: Node, value: Value, update: Node) -> tuple[Graph, Node]:
    graph, parts = _parts(graph, value, update)
    del parts["gradient"]
    merged = replace(
        update, op=f"linear_dw_{update.op}", inputs={**node.inputs, **parts}, outputs=node.outputs, origin=node.origin
    )
    return graph, merged


def _single(graph: Graph, value: Value, update: Node) -> tuple[Graph, Node]:
    graph, parts = _parts(graph, value, update)
    return graph, replace(update, inputs={**parts, "gradient": gradient_name(value.name)})
