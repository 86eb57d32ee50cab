"""Fusion: neighbouring operations become one pass over memory. Each function is a rewriting of the graph.

What is gained: a linear layer's bias and activation happen while the matrix product's tile is in registers; so do the
derivative of the activation before it and the sums that are its bias gradient.
"""

from __future__ import annotations

from dataclasses import replace

from gradring.graph.differentiate import NEEDS_INPUT
from gradring.ir import Graph, Node

__all__ = ["fuse_activations", "fuse_backward", "prune"]

# Operations that can sum the columns of their output dx while they make it.
_SUMMING = frozenset({"linear_dx", "cross_entropy", "mse", "binary_cross_entropy"})


def fuse_activations(graph: Graph, output: str, *, training: bool) -> Graph:
    """``activation(linear(x))`` becomes ``linear[activation](x)``, where nobody else reads the linear layer's output.

    In training, an activation whose derivative reads its input has that input kept, as ``pre``.
    """
    consumers = graph.consumers()
    producers = graph.producers()
    replaced: dict[int, Node] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        if node.op != "activation":
            continue
        linear = producers.get(node.inputs["x"])
        if linear is None or linear.op != "linear" or "activation" in linear.attributes:
            continue
        between = linear.outputs["y"]
        if len(consumers[between]) != 1 or graph.root(output) == between:
            continue
        kind = node.attributes["activation"]
        outputs = {"y": node.outputs["y"]}
        if training and kind in NEEDS_INPUT:
            outputs["pre"] = between
        replaced[id(linear)] = replace(linear, outputs=outputs, attributes={**linear.attributes, "activation": kind})
        gone.add(id(node))
    # The fused node stands where the linear layer stood: nothing between can have read the activation's output.
    return prune(graph.with_nodes(replaced.get(id(n), n) for n in graph.nodes if id(n) not in gone))


def fuse_backward(graph: Graph) -> Graph:
    """Fuse the derivative of the activation, then the column sums, into what makes the gradient."""
    return prune(_fuse_column_sums(_fuse_masks(graph)))


def _fuse_masks(graph: Graph) -> Graph:
    consumers, producers = graph.consumers(), graph.producers()
    replaced: dict[int, Node] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        if node.op != "activation_vjp":
            continue
        made = producers.get(node.inputs["dy"])
        if made is None or made.op != "linear_dx" or len(consumers[node.inputs["dy"]]) != 1:
            continue
        replaced[id(made)] = replace(
            made,
            inputs={**made.inputs, "source": node.inputs["source"]},
            outputs={"dx": node.outputs["dx"]},
            attributes={"activation": node.attributes["activation"]},
        )
        gone.add(id(node))
    return graph.with_nodes(replaced.get(id(n), n) for n in graph.nodes if id(n) not in gone)


def _fuse_column_sums(graph: Graph) -> Graph:
    producers = graph.producers()
    extra: dict[int, str] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        if node.op != "column_sums":
            continue
        made = producers.get(node.inputs["x"])
        width = graph.values[node.inputs["x"]].shape[-1]
        if made is None or made.op not in _SUMMING or id(made) in extra:
            continue
        shape = graph.values[made.outputs["dx"]].shape
        if shape[-1] != width or (made.op != "linear_dx" and len(shape) != 2):  # a loss sums over the batch axis alone
            continue
        extra[id(made)] = node.outputs["y"]
        gone.add(id(node))
    return graph.with_nodes(
        replace(n, outputs={**n.outputs, "column_sums": extra[id(n)]}) if id(n) in extra else n
        for n in graph.nodes
        if id(n) not in gone
    )


def prune(graph: Graph) -> Graph:
    """Drop temps whose memory no node touches any more."""
    used = {graph.root(name) for node in graph.nodes for name in (*node.inputs.values(), *node.outputs.values())}
    values = {name: value for name, value in graph.values.items() if value.kind != "temp" or graph.root(name) in used}
    return replace(graph, values=values)
