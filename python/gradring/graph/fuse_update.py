"""Fusing the optimizer into the products that make the weights' gradients.

``dw = x' dy`` followed by the update of ``w`` writes the gradient to memory, reads it back, and goes over the weight
and its state once more. Here each tile of ``dw`` updates its tile of ``w`` while it is in the first cache. It must
come after every node that reads the old ``w``; all these products are at the end of the step, where none waits for
another.
"""

from __future__ import annotations

from dataclasses import replace

from gradring.graph.bound import Bounds, checked_gradients
from gradring.graph.differentiate import gradient_name
from gradring.graph.schema import fused_update, part_of, schema_of
from gradring.ir import Graph, Node, Value

__all__ = ["fuse_updates", "state_view", "updates_of"]


def fuse_updates(graph: Graph, *, check_finite: bool = False) -> Graph:
    """Replace the optimizer's pass over the flat arenas by updates of each parameter, fused where a product makes it.

    The graph must end with the optimizer's node, and its gradients must be complete (not clipped, not sums of several
    batches). Afterwards the gradients of the fused parameters are never in memory. With ``check_finite`` the graph has
    a second route, for a step in which a gradient may be infinite: separate products, a check, and separate updates.
    """
    updates = updates_of(graph)
    if not updates or graph.nodes[-1] is not updates[-1]:
        raise ValueError(f"[fuse_updates] the graph ends with {graph.nodes[-1].op}: must end with an optimizer")
    before = graph.nodes[: -len(updates)]
    parameters = [(value, update) for update in updates for value in _updated(graph, update)]
    update_of = {value.name: update for value, update in parameters}
    products: dict[int, Value] = {}
    for value, update in parameters:
        made = _makers(graph, value)
        if len(made) == 1 and _all_in(graph, made[0], value.dtype) and _fused(made[0], update) is not None:
            products[id(made[0])] = value
    kept = [node for node in before if id(node) not in products]
    separate = [node for node in before if id(node) in products]
    if not separate:
        return checked_gradients(graph, "last", len(updates)) if check_finite else graph
    merged_names = {value.name for value in products.values()}
    alone = [value for value, _ in parameters if value.name not in merged_names and _makers(graph, value)]
    if check_finite:
        bounds = _bounds(graph, separate, alone)
        graph, kept = bounds.graph, [*kept, *bounds.nodes]
    fused: list[Node] = []
    for node in separate:
        value = products[id(node)]
        graph, merged = _merge(graph, node, value, update_of[value.name])
        fused.append(merged)
    for value in alone:
        graph, single = _single(graph, value, update_of[value.name])
        fused.append(single)
    if not check_finite:
        return graph.with_nodes([*kept, *fused])
    fused = [replace(node, when="bounded", inputs={**node.inputs, "bounded": "step.bounded"}) for node in fused]
    other = [replace(node, phase="update", when="unbounded") for node in separate]
    last = [
        replace(update, when="unbounded", inputs={**update.inputs, "bounded": "step.bounded"}) for update in updates
    ]
    return checked_gradients(graph.with_nodes([*kept, *fused, *other, *last]), "unbounded", len(last))


def updates_of(graph: Graph) -> list[Node]:
    """The optimizer's nodes: one for each range of parameters that are in the same group."""
    return [node for node in graph.nodes if "param" in node.updates]


def _updated(graph: Graph, update: Node) -> list[Value]:
    """The parameters that an optimizer's node updates."""
    root, begin, end = graph.place(update.inputs["param"])
    places = ((value, graph.place(value.name)) for value in graph.views(root))
    return [value for value, (_, first, past) in places if begin <= first and past <= end]


def _all_in(graph: Graph, node: Node, dtype: str) -> bool:
    """Whether a node reads this dtype alone: no op updates parameters with a product of narrower numbers."""
    return all(graph.values[name].dtype == dtype for name in node.inputs.values())


def _fused(product: Node, update: Node) -> str | None:
    """The op that does the work of the product and the update, or None."""
    op = fused_update(product.op, update.op)
    schema = None if op is None else schema_of(op)
    if schema is None or not set(update.inputs) - {"gradient"} <= schema.operands.keys():
        return None
    return op


def _bounds(graph: Graph, products: list[Node], alone: list[Value]) -> Bounds:
    """The proof that no gradient of these products and parameters is infinite."""
    bounds = Bounds(graph)
    for node in products:
        bounds.product(node.inputs["x"], node.inputs["dy"], node.origin)
    for value in alone:
        made = _makers(graph, value)
        name = gradient_name(value.name)
        sums = part_of(made[0], "column_sums") if len(made) == 1 else None
        if sums is not None:
            bounds.sums(made[0].inputs[sums.input], made[0].origin)
        elif len(made) == 1 and (of := _summed(made[0], name)) is not None:
            bounds.sums(of, made[0].origin)
        else:
            last = graph.last_writer(*graph.place(name))
            assert last is not None  # `alone` has only parameters whose gradient a node makes
            bounds.itself(name, last.origin)
    return bounds


def _summed(node: Node, sums: str) -> str | None:
    """The output of ``node`` whose column sums the node writes to ``sums``, or None."""
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
    if update.inputs["param"] == value.name:
        return graph, dict(update.inputs)
    offset = graph.place(value.name)[1] - graph.place(update.inputs["param"])[1]
    for role, name in update.inputs.items():
        if graph.values[name].kind == "state":
            root = graph.root(name)
            view = state_view(graph, root, value, graph.place(name)[1] + offset)
            graph, name = graph.with_value(view), view.name
        parts[role] = name
    return graph, {**parts, "param": value.name}


def state_view(graph: Graph, state: str, parameter: Value, offset: int) -> Value:
    """The part of an optimizer's state, which has the root ``state``, that belongs to a parameter, at element ``offset``."""
    dtype = graph.values[state].dtype
    return replace(parameter, name=f"{state}[{parameter.name}]", kind="state", dtype=dtype, within=state, offset=offset)


def _merge(graph: Graph, node: Node, value: Value, update: Node) -> tuple[Graph, Node]:
    graph, parts = _parts(graph, value, update)
    del parts["gradient"]
    op = _fused(node, update)
    assert op is not None
    inputs = {**node.inputs, **parts}
    return graph, replace(update, op=op, inputs=inputs, outputs=node.outputs, origin=node.origin)


def _single(graph: Graph, value: Value, update: Node) -> tuple[Graph, Node]:
    graph, parts = _parts(graph, value, update)
    return graph, replace(update, inputs={**parts, "gradient": gradient_name(value.name)})
