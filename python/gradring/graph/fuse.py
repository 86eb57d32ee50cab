"""Fusion: neighbouring operations become one pass over memory. Each function is a rewriting of the graph.

A linear layer's bias and activation are then computed while the tile of the matrix product is in registers; so are the
derivative of the activation before it and the sums that are its bias gradient.
"""

from __future__ import annotations

from dataclasses import replace

from gradring.graph.schema import accepts, part_of, schema_of
from gradring.ir import Graph, Node
from gradring.ops.activation import NEEDS_INPUT

__all__ = ["fuse_activations", "fuse_backward", "prune"]


def fuse_activations(graph: Graph, output: str, *, training: bool) -> Graph:
    """Turn ``activation(linear(x))`` into ``linear[activation](x)`` if no other node reads the linear layer's output;
    likewise for every op that can apply an activation to its result.

    In training, the fused node also keeps the activation's input, as ``pre``, if its derivative reads it.
    """
    consumers = graph.consumers()
    producers = graph.producers()
    replaced: dict[int, Node] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        part = part_of(node, "activation")
        if part is None or part.attribute is None:
            continue
        between = node.inputs[part.input]
        made = producers.get(between)
        schema = made and schema_of(made.op)
        epilogue = schema.epilogue if schema else None
        if made is None or epilogue is None or epilogue.attribute in made.attributes:
            continue
        if made.outputs.get(epilogue.result) != between or len(consumers[between]) != 1:
            continue
        if graph.root(output) == between:
            continue
        if node.attributes.keys() != {part.attribute}:  # a form that only an op of its own computes
            continue
        kind = node.attributes[part.attribute]
        outputs = {**made.outputs, epilogue.result: node.outputs[part.result]}
        if training and kind in NEEDS_INPUT:
            if epilogue.other is None:
                continue
            outputs[epilogue.other] = between
        fused = replace(made, outputs=outputs, attributes={**made.attributes, epilogue.attribute: kind})
        if not accepts(graph, fused):
            continue
        replaced[id(made)] = fused
        gone.add(id(node))
    # Put the fused node where the linear layer was: no node between the two can have read the activation's output.
    return prune(graph.with_nodes(replaced.get(id(n), n) for n in graph.nodes if id(n) not in gone))


def fuse_backward(graph: Graph) -> Graph:
    """Fuse the derivative of the activation, and then the column sums, into the node that makes the gradient."""
    return prune(_fuse_column_sums(_fuse_masks(graph)))


def _fuse_masks(graph: Graph) -> Graph:
    consumers, producers = graph.consumers(), graph.producers()
    replaced: dict[int, Node] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        part = part_of(node, "derivative")
        if part is None or part.attribute is None or part.other is None:
            continue
        between = node.inputs[part.input]
        made = producers.get(between)
        schema = made and schema_of(made.op)
        epilogue = schema.derivative_epilogue if schema else None
        if made is None or epilogue is None or epilogue.other is None or epilogue.attribute in made.attributes:
            continue
        if made.outputs.get(epilogue.result) != between or len(consumers[between]) != 1:
            continue
        if node.attributes.keys() != {part.attribute}:
            continue
        replaced[id(made)] = replace(
            made,
            inputs={**made.inputs, epilogue.other: node.inputs[part.other]},
            outputs={**made.outputs, epilogue.result: node.outputs[part.result]},
            attributes={**made.attributes, epilogue.attribute: node.attributes[part.attribute]},
        )
        gone.add(id(node))
    return graph.with_nodes(replaced.get(id(n), n) for n in graph.nodes if id(n) not in gone)


def _fuse_column_sums(graph: Graph) -> Graph:
    producers = graph.producers()
    replaced: dict[int, Node] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        part = part_of(node, "column_sums")
        if part is None:
            continue
        summed = node.inputs[part.input]
        made = producers.get(summed)
        role = _sums_role(made, summed) if made is not None else None
        if made is None or role is None or id(made) in replaced:
            continue
        outputs: dict[str, str] = {**made.outputs, role: node.outputs[part.result]}
        summing = replace(made, outputs=outputs)
        if not accepts(graph, summing):  # the op sums over other axes
            continue
        replaced[id(made)] = summing
        gone.add(id(node))
    return graph.with_nodes(replaced.get(id(n), n) for n in graph.nodes if id(n) not in gone)


def _sums_role(node: Node, of: str) -> str | None:
    """The operand of a node that can take the column sums of its output ``of``."""
    schema = schema_of(node.op)
    for role, operand in (schema.operands if schema else {}).items():
        if operand.column_sums_of is not None and node.outputs.get(operand.column_sums_of) == of:
            return role if role not in node.outputs else None
    return None


def prune(graph: Graph) -> Graph:
    """Drop temps whose memory no node touches any more."""
    used = {graph.root(name) for node in graph.nodes for name in (*node.inputs.values(), *node.outputs.values())}
    values = {name: value for name, value in graph.values.items() if value.kind != "temp" or graph.root(name) in used}
    return replace(graph, values=values)
