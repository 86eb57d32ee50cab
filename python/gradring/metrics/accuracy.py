"""The share of right answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gradring.metrics.base import Metric

__all__ = ["Accuracy"]


@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of samples whose prediction is right: the label has the largest of (N, classes) scores; or each logit
    is above 0 exactly if its target is above 1/2. While a model trains, the loss counts the right answers.

    >>> import numpy as np
    >>> Accuracy()(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """

    @property
    def name(self) -> str:
        return "accuracy"

    def __call__(self, predictions: NDArray[Any], targets: NDArray[Any]) -> float:
        if predictions.shape == targets.shape:
            right = ((predictions > 0) == (targets > 0.5)).reshape(len(targets), -1).all(axis=1)
        elif predictions.ndim == 2 and targets.size == len(predictions):
            right = predictions.argmax(axis=1) == targets.reshape(-1)
        else:
            raise ValueError(
                f"[Accuracy] predictions are {predictions.shape}, targets {targets.shape}: must be (N, classes) and (N,) "
                "labels, or the same shape"
            )
        return float(right.mean())
