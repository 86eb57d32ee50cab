"""What each operation of a graph takes and makes: the table that ``spec.check`` reads.

An operand is written ``role: T[b, n]``. ``T`` is the node's float type, ``i64`` and ``f64`` are what they say, and a
letter in brackets stands for one size, the same wherever it occurs in the node. ``*`` stands for any sizes, none
included. ``role?`` may be absent. ``role!`` is left undefined by the node, which uses its memory for itself.
``@clip`` is that field of the step record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

from gradring.ir import Node

__all__ = ["Operand", "Rule", "fail", "rule_of"]

_OPERAND = re.compile(r"(\w+)([?!]?): (?:@(\w+)|(T|i64|f64)\[([^\]]*)\])")
_DTYPES = {"T": "T", "i64": "int64", "f64": "float64"}


@dataclass(frozen=True)
class Operand:
    """One operand: its dtype (``T``: any float type, the same throughout the node) and the pattern of its shape, or the
    field of the step record that it must be."""

    role: str
    dtype: str = ""
    shape: tuple[str, ...] = ()
    optional: bool = False
    undefined: bool = False
    field: str = ""


@dataclass(frozen=True)
class Rule:
    """An operation's operands, the inputs that it changes, and the phases in which it may stand."""

    inputs: dict[str, Operand]
    outputs: dict[str, Operand]
    updates: tuple[str, ...] = ()
    phases: tuple[str, ...] = ("forward", "backward")
    effects: bool = False
    choices: dict[str, tuple[object, ...]] = field(default_factory=dict)


def _operands(text: str) -> dict[str, Operand]:
    found: dict[str, Operand] = {}
    for role, mark, step, dtype, shape in _OPERAND.findall(text):
        sizes = tuple(part.strip() for part in shape.split(",") if part.strip())
        found[role] = Operand(role, _DTYPES.get(dtype, ""), sizes, mark == "?", mark == "!", step)
    return found


_ACTIVATION = ("relu", "gelu", "silu", "tanh", "sigmoid")
_STEP = "lr: @learning_rate, finite: @finite, bounded?: @bounded"
_SGD = "param: T[*], momentum?: T[*]"
_ADAM = "param: T[*], m: T[*], v: T[*], number: @number"
_SCALED = "gradient: T[*], clip?: @clip, weight?: @total_weight"
_LOSS = "totals: i64[3], dx?: T[*, c], column_sums?: T[c]"

# op: inputs, outputs, and what differs from the default of Rule.
_TABLE: dict[str, tuple[str, str, dict[str, object]]] = {
    "linear": (
        "x: T[*, k], w: T[k, n], b?: T[n]",
        "y: T[*, n], pre?: T[*, n], parts?: T[2, *, n]",
        {"phases": ("forward",), "choices": {"activation": (None, *_ACTIVATION)}},
    ),
    "linear_dx": (
        "dy: T[*, n], w: T[k, n], source?: T[*, k]",
        "dx: T[*, k], column_sums?: T[k]",
        {"phases": ("backward",), "choices": {"activation": (None, *_ACTIVATION)}},
    ),
    "linear_dw": ("x: T[*, k], dy: T[*, n]", "dw: T[k, n]", {"phases": ("backward", "update")}),
    "activation": ("x: T[*]", "y: T[*]", {"choices": {"activation": _ACTIVATION}}),
    "activation_vjp": (
        "dy: T[*], source: T[*]",
        "dx: T[*]",
        {"phases": ("backward",), "choices": {"activation": _ACTIVATION}},
    ),
    "add": ("a: T[*], b: T[*]", "y: T[*]", {}),
    "copy": ("x: T[*]", "y: T[*]", {}),
    "accumulate": (
        "sum: T[*], gradient: T[*], finite?: @finite",
        "",
        {"updates": ("sum",), "phases": ("backward",)},
    ),
    "column_sums": ("x: T[*, n]", "y: T[n]", {"phases": ("backward",)}),
    "dropout": ("x: T[*], draw: @draw", "y: T[*]", {}),
    "function": ("x: T[b, *]", "y: T[b, ...], answer: i64[1]", {"phases": ("forward",), "effects": True}),
    "function_vjp": (
        "dy: T[b, ...], x: T[b, *], y: T[b, ...]",
        "dx: T[b, *], answer: i64[1]",
        {"phases": ("backward",), "effects": True},
    ),
    "cross_entropy": ("x: T[b, c], target: i64[b]", _LOSS, {"phases": ("loss",)}),
    "mse": ("x: T[*, c], target: T[*, c]", _LOSS, {"phases": ("loss",)}),
    "binary_cross_entropy": ("x: T[*, c], target: T[*, c]", _LOSS, {"phases": ("loss",)}),
    "check_step": (
        "totals: i64[3], pending?: @pending_weight",
        "loss_sum: @loss_sum, weight: @loss_weight, correct: @correct, finite: @finite, total_weight?: @total_weight",
        {"phases": ("check",), "effects": True},
    ),
    "largest": ("x: T[*]", "y: T[blocks]", {"phases": ("backward", "update")}),
    "bound_gradient": (
        "x?: T[a], dy?: T[b], bounded: @bounded",
        "",
        {"updates": ("bounded",), "phases": ("backward",), "effects": True},
    ),
    "check_gradients": ("largest: T[*]", "", {"phases": ("update",), "effects": True}),
    "sum_of_squares": ("gradient: T[*]", "sum: f64[1]", {"phases": ("update",)}),
    "clip": (
        "sum: f64[1], weight?: @total_weight",
        "clip: @clip, norm: @gradient_norm",
        {"phases": ("update",), "effects": True},
    ),
    "sgd": (f"{_SGD}, {_SCALED}, {_STEP}", "", {"phases": ("update",), "updates": ("param", "momentum")}),
    "adam": (f"{_ADAM}, {_SCALED}, {_STEP}", "", {"phases": ("update",), "updates": ("param", "m", "v")}),
    "linear_dw_sgd": (
        f"x: T[*, k], dy: T[*, n], {_SGD.replace('[*]', '[k, n]')}, {_STEP}",
        "dw!: T[k, n]",
        {"phases": ("update",), "updates": ("param", "momentum")},
    ),
    "linear_dw_adam": (
        f"x: T[*, k], dy: T[*, n], {_ADAM.replace('[*]', '[k, n]')}, {_STEP}",
        "dw!: T[k, n]",
        {"phases": ("update",), "updates": ("param", "m", "v")},
    ),
}
_TABLE["adamw"] = _TABLE["adam"]
_TABLE["linear_dw_adamw"] = _TABLE["linear_dw_adam"]


@cache
def rule_of(op: str) -> Rule | None:
    """The rule of an operation, or None if there is no such operation."""
    if op not in _TABLE:
        return None
    inputs, outputs, more = _TABLE[op]
    return Rule(_operands(inputs), _operands(outputs), **more)  # type: ignore[arg-type]


def fail(number: int, node: Node, operand: str, problem: str, expected: object, got: object) -> ValueError:
    """The error for one operand of a node."""
    place = f"[graph] node {number} ({node.op}, {node.origin})" if node.origin else f"[graph] node {number} ({node.op})"
    return ValueError(f"{place}: operand {operand}: {problem}: expected {expected}, got {got}")
