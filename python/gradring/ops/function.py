"""function: a call of a Python function (``nn.Function``). Only programs use this op."""

from __future__ import annotations

from gradring.ir import Node
from gradring.ops._declare import Tape, declare

__all__: list[str] = []


def _rule(tape: Tape, node: Node, dy: str) -> None:
    inputs = {"dy": dy, "x": node.inputs["x"], "y": node.outputs["y"]}
    effects = f"{node.effects}, backward"
    tape.contribute(node.inputs["x"], "function_vjp", "dx", inputs, effects=effects, **node.attributes)


declare("function", rule=_rule)
