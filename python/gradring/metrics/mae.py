"""The mean absolute error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.metrics.base import Metric

__all__ = ["MAE"]


@dataclass(frozen=True)
class MAE(Metric):
    """The mean of ``|predictions - targets|`` over all elements.

    >>> MAE()(np.array([1.0, 2.0]), np.array([0.0, 4.0]))
    1.5
    """

    @property
    def name(self) -> str:
        return "mae"

    def __call__(self, predictions: NDArray[Any], targets: NDArray[Any]) -> float:
        self._same_shape(predictions, targets)
        return float(np.abs(np.subtract(predictions, targets, dtype=np.float64)).mean())
