"""The measurements of an incomplete epoch, with which a resumed run continues."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_SUMS", "EpochSums", "Measured"]

Array = NDArray[Any]
EpochSums = tuple[float, ...]
"""Loss, weight, right answers and samples of an epoch's batches so far; then the same without the group of batches whose
gradients wait for an update."""

NO_SUMS: EpochSums = (0.0,) * 8
_PREDICTIONS, _TARGETS = "predictions", "targets"


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of an epoch's batches so far: sums, and the arrays for metrics that are functions."""

    sums: EpochSums = NO_SUMS
    predictions: tuple[Array, ...] = ()
    targets: tuple[Array, ...] = ()

    def arrays(self) -> dict[str, Array]:
        """The arrays for a checkpoint, by name; empty without such metrics."""
        if not self.predictions:
            return {}
        return {_PREDICTIONS: _joined(self.predictions), _TARGETS: _joined(self.targets)}

    def text(self) -> str:
        """The sums as a text, from which ``read`` restores every bit."""
        return json.dumps(self.sums)

    @classmethod
    def read(cls, sums: Any, arrays: Mapping[str, Array]) -> Measured:
        """Restore the measurements from a text or numbers, and from arrays. ``sums`` is None in a file that is older than
        the sums. ``ValueError`` or ``TypeError`` for what no epoch could have measured."""
        numbers = NO_SUMS if sums is None else _numbers(json.loads(sums) if isinstance(sums, str) else sums)
        if not arrays:
            return cls(numbers)
        if set(arrays) != {_PREDICTIONS, _TARGETS}:
            raise ValueError(f"an epoch's arrays are predictions and targets, got {', '.join(sorted(arrays))}")
        predictions, targets = arrays[_PREDICTIONS], arrays[_TARGETS]
        if predictions.ndim < 1 or targets.ndim < 1 or len(predictions) != len(targets):
            raise ValueError(
                f"an epoch's predictions are {predictions.shape} and its targets {targets.shape}: each must have a row for "
                "each sample"
            )
        return cls(numbers, (predictions,), (targets,))


def _numbers(given: Any) -> EpochSums:
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != len(NO_SUMS):
        raise ValueError(f"the sums of an epoch must be {len(NO_SUMS)} numbers")
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in given):
        raise ValueError("the sums of an epoch must be numbers")
    numbers = tuple(float(number) for number in given)
    for number in (*numbers[2:4], *numbers[6:8]):  # check right answers and samples; a loss may be NaN
        if not (0 <= number <= 2**53 and number == math.floor(number)):
            raise ValueError(f"the sums of an epoch have {number} for a count")
    return numbers


def _joined(parts: Sequence[Array]) -> Array:
    """Join all rows in one array, in a dtype that a file can hold."""
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole.astype(np.float64) if whole.dtype.kind == "f" and whole.dtype.itemsize > 8 else whole
