"""Fusing the optimizer into the products that make the weights' gradients.

``dw = x' dy`` followed by the update of ``w`` writes the gradient to memory, reads it back, and goes over the weight and
its state once more. Here each tile of ``dw`` updates its tile of ``w`` while it is in the first cache. It must come
after everything that reads the old ``w``; all these products stand at the end of the step, where none waits for
another.
"""

from __future__ import annotations

from dataclasses import replace

from gradring.graph.bound import Bounds, checked_gradients
from gradring.graph.differentiate import gradient_name
from gradring.graph.schema import fused_update, schema_of
from gradring.ir import Graph, Node, Value

__all__ = ["fuse_updates", "state_view"]


def fuse_updates(graph: Graph, *, check_finite: bool = False) -> Graph:
    """Replace the optimizer's pass over the flat arenas by updates of each parameter, fused where a product makes it.

    The graph must end with the optimizer's node, its gradients whole (not clipped, not sums of several batches).
    Afterwards the gradients of the fused parameters are nowhere in memory. With ``check_finite`` the graph has a second
    route, for a step in which a gradient may be infinite: the separate products and update, with a look between.
    """
    update = graph.nodes[-1]
    if "param" not in update.updates:
        raise ValueError(f"[fuse_updates] the graph ends with {update.op}: must end with an optimizer")
    parameters = graph.views(update.inputs["param"])
    products: dict[int, Value] = {}
    for value in parameters:
        made = _makers(graph, value)
        if len(made) == 1 and fused_update(made[0].op, update.op) is not None:
            products[id(made[0])] = value
    kept = [node for node in graph.nodes[:-1] if id(node) not in products]
    separate = [node for node in graph.nodes[:-1] if id(node) in products]
    merged_names = {value.name for value in products.values()}
    alone = [value for value in parameters if value.name not in merged_names and _makers(graph, value)]
    if check_finite and separate:
        bounds = _bounds(graph, separate, alone)
        graph, kept = bounds.graph, [*kept, *bounds.nodes]
    fused: list[Node] = []
    for node in separate:
        graph, merged = _merge(graph, node, products[id(node)], update)
        fused.append(merged)
    for value in alone:
        graph, single = _single(graph, value, update)
        fused.append(single)
    if not check_finite:
        return graph.with_nodes([*kept, *fused])
    if not separate:
        return checked_gradients(graph, "last")
    fused = [replace(node, when="bounded", inputs={**node.inputs, "bounded": "step.bounded"}) for node in fused]
    other = [replace(node, phase="update", when="unbounded") for node in separate]
    last = replace(update, when="unbounded", inputs={**update.inputs, "bounded": "step.bounded"})
    return checked_gradients(graph.with_nodes([*kept, *fused, *other, last]), "unbounded")


def _bounds(graph: Graph, products: list[Node], alone: list[Value]) -> Bounds:
    """The proof that no gradient of these products and parameters is infinite."""
    bounds = Bounds(graph)
    for node in products:
        bounds.product(node.inputs["x"], node.inputs["dy"], node.origin)
    for value in alone:
        made = _makers(graph, value)
        name = gradient_name(value.name)
        if len(made) == 1 and made[0].op == "column_sums":
            bounds.sums(made[0].inputs["x"], made[0].origin)
        elif len(made) == 1 and (of := _summed(made[0], name)) is not None:
            bounds.sums(of, made[0].origin)
        else:
            bounds.itself(name, made[-1].origin)
    return bounds


def _summed(node: Node, sums: str) -> str | None:
    """The output of a node whose column sums it writes to ``sums``, or None."""
    schema = schema_of(node.op)
    for role, name in node.outputs.items():
        of = schema.operands[role].column_sums_of if schema else None
        if name == sums and of is not None:
            return node.outputs.get(of)
    return None


def _makers(graph: Graph, parameter: Value) -> list[Node]:
    """The nodes that write the parameter's gradient."""
    name = gradient_name(parameter.name)
    return list(graph.writers(*graph.place(name))) if name in graph.values else []


def _parts(graph: Graph, value: Value, update: Node) -> tuple[Graph, dict[str, str]]:
    """The update's inputs for one parameter: views of the states, and the values of the step."""
    parts: dict[str, str] = {}
    for role, name in update.inputs.items():
        if graph.values[name].kind == "state":
            view = state_view(graph, name, value)
            graph, name = graph.with_value(view), view.name
        parts[role] = name
    return graph, {**parts, "param": value.name}


def state_view(graph: Graph, state: str, parameter: Value) -> Value:
    """The part of an optimizer's state, which has the root ``state``, that belongs to a parameter."""
    offset = graph.place(parameter.name)[1]
    dtype = graph.values[state].dtype
    return replace(parameter, name=f"{state}[{parameter.name}]", kind="state", dtype=dtype, within=state, offset=offset)


def _merge(graph: Graph, node: Node, value: Value, update: Node) -> tuple[Graph, Node]:
    graph, parts = _parts(graph, value, update)
    del parts["gradient"]
    op = fused_update(node.op, update.op)
    assert op is not None
    inputs = {**node.inputs, **parts}
    return graph, replace(update, op=op, inputs=inputs, outputs=node.outputs, origin=node.origin)


def _single(graph: Graph, value: Value, update: Node) -> tuple[Graph, Node]:
    graph, parts = _parts(graph, value, update)
    return graph, replace(update, inputs={**parts, "gradient": gradient_name(value.name)})
