"""Ownership: each lane reads and writes only its own rows of every weight, step after step.

A cache line that one core writes and another reads costs tens of nanoseconds each time, many times the arithmetic on it. The
backward pass and the update can divide a weight among lanes by its rows: ``dx = dy w'`` makes a column of ``dx`` from a row of
``w``, and ``dw = x' dy`` can be cut anywhere. But each element of the forward product ``x w`` needs all rows of ``w``. If the
product is summed in two halves of ``k``, each by one half of the lanes, a lane reads only its own rows there too; the lanes
then exchange the output once.
"""

from __future__ import annotations

from dataclasses import replace

from gradring.graph.schema import schema_of
from gradring.ir import NARROW, Graph, Node, Value

__all__ = ["sum_in_parts"]

_LEAST = 128  # the least k for which the sum in two parts saves more time than the exchange costs


def sum_in_parts(graph: Graph) -> Graph:
    """Make large forward products with trained weights sum in two parts of ``k``.

    Only the shape decides whether a product does, because the order of its sums, and so its bits, must not depend
    on the number of lanes.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        if _worthwhile(graph, node):
            y = graph.values[node.outputs["y"]]
            parts = Value(f"{y.name}.parts", (2, *y.shape), dtype=y.dtype)
            graph = graph.with_value(parts)
            node = replace(node, outputs={**node.outputs, "parts": parts.name})
        nodes.append(node)
    return graph.with_nodes(nodes)


def _worthwhile(graph: Graph, node: Node) -> bool:
    schema = schema_of(node.op)
    if schema is None or "parts" not in schema.operands or "pre" in node.outputs:
        return False
    if node.attributes.get("activation") not in (None, "relu"):
        return False
    w = graph.values[node.inputs["w"]]
    if w.dtype in NARROW:  # its product is not summed in parts
        return False
    k, n = w.shape
    m = graph.values[node.outputs["y"]].size // n
    # In a sum of two parts, lanes exchange the m * n elements of the output, but no longer the k * n elements of the weight
    # that another lane's core has written. So k must be well above m.
    return w.kind == "param" and m >= 16 and n >= 32 and k >= max(_LEAST, 2 * m)
