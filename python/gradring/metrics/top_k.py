"""The share of labels among the best guesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import whole
from gradring.metrics.base import Metric

__all__ = ["TopK"]


@dataclass(frozen=True)
class TopK(Metric):
    """The share of samples whose label has fewer than ``k`` classes with a higher score; predictions (N, classes), labels
    (N,). With fewer than ``k`` classes every label counts; a label whose score is NaN does not count.

    >>> TopK(2)(np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]), np.array([1, 0]))
    0.5
    """

    k: int = 5

    def __post_init__(self) -> None:
        whole("TopK", "k", self.k, 1)

    @property
    def name(self) -> str:
        return f"top{self.k}"

    def __call__(self, predictions: NDArray[Any], targets: NDArray[Any]) -> float:
        if predictions.ndim != 2 or targets.size != len(predictions):
            raise ValueError(
                f"[TopK] predictions are {predictions.shape}, targets {targets.shape}: must be (N, classes) and (N,) labels"
            )
        own = np.take_along_axis(predictions, targets.reshape(-1, 1).astype(np.intp), axis=1)
        better = (predictions > own).sum(axis=1)
        return float(((better < self.k) & ~np.isnan(own[:, 0])).mean())
