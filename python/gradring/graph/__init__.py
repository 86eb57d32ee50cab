"""Makes native programs from layers: traces, differentiates, fuses and plans. Nothing here runs a step."""

from gradring.graph.differentiate import differentiate, layer_ops, with_loss
from gradring.graph.fuse import fuse_activations, fuse_backward
from gradring.graph.passes import accumulated, evaluate_graph, predict_graph, train_graph, with_update
from gradring.graph.plan import Plan, plan
from gradring.graph.spec import check
from gradring.ir import Graph, Node, Value, trace

__all__ = [
    "Graph",
    "Node",
    "Plan",
    "Value",
    "accumulated",
    "check",
    "differentiate",
    "evaluate_graph",
    "fuse_activations",
    "fuse_backward",
    "layer_ops",
    "plan",
    "predict_graph",
    "trace",
    "train_graph",
    "with_loss",
    "with_update",
]
