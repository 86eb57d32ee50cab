"""The coefficient of determination."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.metrics.base import Metric

__all__ = ["R2"]


@dataclass(frozen=True)
class R2(Metric):
    """``1 - sum((targets - predictions)**2) / sum((targets - mean)**2)``, the mean over the outputs: 1 is perfect, 0 is as good
    as the mean of the targets. NaN where the targets of an output are all equal.

    >>> R2()(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
    1.0
    """

    @property
    def name(self) -> str:
        return "r2"

    def __call__(self, predictions: NDArray[Any], targets: NDArray[Any]) -> float:
        self._same_shape(predictions, targets)
        wanted = np.asarray(targets, np.float64).reshape(len(targets), -1)
        errors = ((wanted - predictions.reshape(wanted.shape)) ** 2).sum(axis=0)
        spread = ((wanted - wanted.mean(axis=0)) ** 2).sum(axis=0)
        if not spread.all():
            return math.nan
        return float((1.0 - errors / spread).mean())
