"""The graph of a step as plain data: values, nodes, graphs, the layout of parameters, and the builder for layers."""

from gradring.ir.builder import Builder, Input, Traceable, trace
from gradring.ir.graph import Graph
from gradring.ir.layout import Layout
from gradring.ir.nodes import PHASES, WHEN, Node
from gradring.ir.values import GIVEN, STEP, Value, step_value

__all__ = [
    "GIVEN",
    "PHASES",
    "STEP",
    "WHEN",
    "Builder",
    "Graph",
    "Input",
    "Layout",
    "Node",
    "Traceable",
    "Value",
    "step_value",
    "trace",
]
