"""Mixed precision: products read operands of 16 bits, and everything else, parameters and sums included, stays in float32.

The method is that of Micikevicius et al., "Mixed Precision Training" (2018), with its scaling of the loss for float16, whose
range is too small for gradients as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gradring.graph.schema import Schema, converts, schema_of
from gradring.ir import Graph, Node, Value

__all__ = ["with_narrow_operands", "with_scaled_loss", "with_wide_gradients"]


def with_narrow_operands(graph: Graph, dtype: str | None) -> Graph:
    """A forward graph whose products read their matrices in ``dtype``; None: the graph as it is.

    A cast comes before the first product that reads a value. Products sum in float32 and their results are float32, as are
    operands such as a bias, which ops take in float32 beside narrow matrices.
    """
    if dtype is None:
        return graph
    nodes: list[Node] = []
    narrow: dict[str, str] = {}
    for node in graph.nodes:
        inputs = dict(node.inputs)
        for role in _matrices(graph, node):
            name = node.inputs[role]
            if name not in narrow:
                narrow[name] = graph.fresh(f"{name}.{dtype}")
                graph = graph.with_value(Value(narrow[name], graph.values[name].shape, dtype=dtype))
                output = {"y": narrow[name]}
                cast = Node(
                    "cast", {"x": name}, output, {"dtype": dtype}, phase=node.phase, when=node.when, origin=node.origin
                )
                nodes.append(cast)
            inputs[role] = narrow[name]
        nodes.append(replace(node, inputs=inputs))
    return graph.with_nodes(nodes)


def with_scaled_loss(graph: Graph, gradient: str) -> Graph:
    """The graph of a forward pass with its loss, in which ``gradient``, that of the model's output, is multiplied by the loss's
    scale. So all gradients that are made of it are multiplied, until ``clip`` says by what the update multiplies them."""
    raw = graph.fresh(f"{gradient}.unscaled")
    graph = graph.with_value(replace(graph.values[gradient], name=raw)).with_step("loss_scale")
    graph = graph.with_nodes(_writing(graph.nodes, {gradient: raw}))
    inputs = {"x": raw, "scale": "step.loss_scale", "loss": "step.loss_sum"}
    return graph.with_node(Node("scale_gradient", inputs, {"y": gradient}, phase="backward", origin="loss_scale"))


def with_wide_gradients(graph: Graph) -> Graph:
    """The graph in which ops that sum in float32 and round to 16 bits, only for a cast to float32, write float32.

    The derivative of a cast to 16 bits is a cast back, so without this pass each gradient would be rounded in between.
    """
    producers, readers = graph.producers(), graph.consumers()
    values = dict(graph.values)
    widened: dict[str, str] = {}  # a narrow value -> the float32 value that is written in its place
    for node in graph.nodes:
        name = node.inputs.get("x", "")
        made = producers.get(name)
        if not converts(node) or made is None or graph.values[name].kind != "temp" or len(readers[name]) > 1:
            continue
        role = next(role for role, output in made.outputs.items() if output == name)
        result = node.outputs["y"]
        if _may_be_float32(made, role) and graph.values[result].dtype == "float32" and made.when == node.when:
            widened[name] = result
            del values[name]
    kept = (node for node in graph.nodes if node.inputs.get("x") not in widened or not converts(node))
    return replace(graph, values=values).with_nodes(_writing(kept, widened))


def _writing(nodes: Iterable[Node], widened: dict[str, str]) -> list[Node]:
    return [
        replace(node, outputs={role: widened.get(name, name) for role, name in node.outputs.items()}) for node in nodes
    ]


def _matrices(graph: Graph, node: Node) -> list[str]:
    """The operands of a product of float32 matrices that it would take in 16 bits; they must have the same dtype."""
    schema = schema_of(node.op)
    if schema is None or not _multiplies(schema):
        return []
    roles = [role for role in node.inputs if role in schema.inputs and not schema.operands[role].or_float32]
    return roles if all(graph.values[node.inputs[role]].dtype == "float32" for role in roles) else []


def _multiplies(schema: Schema) -> bool:
    return "products" in schema.attributes and any(schema.operands[role].or_float32 for role in schema.outputs)


def _may_be_float32(node: Node, role: str) -> bool:
    schema = schema_of(node.op)
    return schema is not None and role in schema.operands and schema.operands[role].or_float32
