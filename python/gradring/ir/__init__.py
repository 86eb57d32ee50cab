"""The graph of a step as plain data: values, nodes, graphs, the layout of parameters, and the builder for layers."""

from gradring.ir.builder import Builder, Input, Traceable, trace
from gradring.ir.graph import Graph
from gradring.ir.layout import Layout
from gradring.ir.memory import Arena, Memory, Place, memory_of, parameters_graph, roots_of
from gradring.ir.nodes import PHASES, WHEN, Node
from gradring.ir.values import GIVEN, ITEM, NARROW, STEP, Value, step_value

__all__ = [
    "GIVEN",
    "ITEM",
    "NARROW",
    "PHASES",
    "STEP",
    "WHEN",
    "Arena",
    "Builder",
    "Graph",
    "Input",
    "Layout",
    "Memory",
    "Node",
    "Place",
    "Traceable",
    "Value",
    "memory_of",
    "parameters_graph",
    "roots_of",
    "step_value",
    "trace",
]
