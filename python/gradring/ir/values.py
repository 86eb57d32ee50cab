"""Values: what the nodes of a graph read and write."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["GIVEN", "ITEM", "NARROW", "STEP", "Value", "step_value"]

ITEM = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
}
"""Bytes of an element."""

NARROW = ("float16", "bfloat16")
"""Floats of 16 bits."""

# The arena of the roots of each kind, unless they name another one.
_ARENAS = {
    "param": "parameters",
    "buffer": "parameters",
    "grad": "gradients",
    "state": "state",
    "temp": "temps",
    "const": "constants",
}


@dataclass(frozen=True)
class Value:
    """An array of known shape and dtype.

    ``kind`` says where the array lives: ``input`` and ``output`` belong to the batch; ``param``, ``grad`` and ``state``
    are arenas that last; ``buffer`` is a part of the parameters' arena that no optimizer changes, such as running
    moments; ``temp`` is memory of this step; ``step`` is a field of the step record; ``const`` has the numbers of
    ``data``, which are part of the program.

    ``within`` names the value of which this one is a view, and ``offset`` is the element where the view begins. A
    value without ``within`` is a root. A root's own ``offset`` is its place in its arena, in elements; an input's is the
    number of its field in the batch. ``arena`` names the arena of a root, if it is not the usual one of its kind. A ``span``
    is the range of several views, which one node updates.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = "temp"
    dtype: str = "float32"
    within: str | None = None
    offset: int = 0
    arena: str = ""
    span: bool = False
    data: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def lies_in(self) -> str:
        """The name of a root's arena; empty where its memory comes with the batch, or in the step record."""
        return self.arena or _ARENAS.get(self.kind, "")


# The fields of the step record (csrc/program/step_record.h) by name, with their dtypes.
STEP = {
    "learning_rate": "float64",  # the learning rate of this update
    "number": "int64",  # this update's number, from 1
    "draw": "int64",  # this forward pass's number, a key of dropout's numbers
    "pending_weight": "float64",  # the total weight of the earlier micro-batches of this update
    "loss_sum": "float64",  # over the batch's rows
    "loss_weight": "float64",  # what the sum is divided by for the mean
    "total_weight": "float64",  # the total weight of all micro-batches of this update
    "correct": "int64",  # rows whose prediction is right
    "finite": "bool",  # whether the step has no fault, and may change parameters
    "bounded": "bool",  # whether all gradients have been proved finite before they are made
    "clip": "float64",  # the factor that brings the gradients' norm below its limit
    "gradient_norm": "float64",
    "loss_scale": "float64",  # what the gradient of the loss is multiplied by
}

# The fields whose values are set before the first node runs.
GIVEN = frozenset({"learning_rate", "number", "draw", "pending_weight", "bounded", "loss_scale"})


def step_value(field: str) -> Value:
    """A field of the step record as a value: ``step_value("clip").name`` is ``"step.clip"``."""
    return Value(f"step.{field}", (), "step", STEP[field])
