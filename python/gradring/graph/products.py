"""The last pass over a step's graph: how its products of float32 matrices are computed."""

from __future__ import annotations

from dataclasses import replace

from gradring.graph.schema import schema_of
from gradring.ir import Graph, Node

__all__ = ["with_products"]


def with_products(graph: Graph, products: str) -> Graph:
    """Give every node that multiplies float32 matrices the attribute ``products``. With ``"fma"``, the default of these ops,
    return the graph as it is."""
    if products == "fma":
        return graph
    return graph.with_nodes(
        replace(node, attributes={**node.attributes, "products": products}) if _multiplies(graph, node) else node
        for node in graph.nodes
    )


def _multiplies(graph: Graph, node: Node) -> bool:
    schema = schema_of(node.op)
    if schema is None or "products" not in schema.attributes:
        return False
    first = next(name for role, name in node.inputs.items() if role in schema.inputs)
    return graph.values[first].dtype == "float32"
