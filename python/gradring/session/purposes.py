"""What the meetings of the ranks of a training are for, and the words of errors about them."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["FAILED", "FAULTS", "INTERRUPTED", "NAMES", "STOPS", "Purpose"]


class Purpose(IntEnum):
    """What a meeting is for. The first two are those of native steps."""

    STEP = 0
    UPDATE = 1
    EVALUATE = 2
    SAVE = 3
    LOAD = 4
    RESET = 5
    EPOCH = 6
    FIT = 7
    OPTIMIZER = 8
    MAKE = 9
    ROWS = 10
    RESUME = 11
    BATCH = 12


NAMES: dict[int, str] = {
    Purpose.STEP: "takes a training step",
    Purpose.UPDATE: "ends an update",
    Purpose.EVALUATE: "evaluates",
    Purpose.SAVE: "saves",
    Purpose.LOAD: "loads",
    Purpose.RESET: "calls reset",
    Purpose.EPOCH: "ends an epoch",
    Purpose.FIT: "begins fit",
    Purpose.OPTIMIZER: "assigns an optimizer",
    Purpose.MAKE: "makes a trainer",
    Purpose.ROWS: "joins its rows with those of other ranks",
    Purpose.RESUME: "looks for the newest checkpoint",
    Purpose.BATCH: "begins a step with shards",
}
"""What a rank does in a meeting."""

FAULTS = {
    1: "a loss that is NaN or infinite",
    2: "a label that is out of range",
    3: "an exception in a function of the model or the loss",
    4: "a gradient that is NaN or infinite",
    5: "an id that is out of range",
    6: "a batch whose weights are all zero",
}
"""What a rank has found in its batch."""

FAILED, INTERRUPTED = 1, 2
STOPS = {FAILED: "an exception there", INTERRUPTED: "an interrupt there"}
"""Why a rank has stopped."""
