"""The base class of this package's metrics."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gradring.attributes import Explained

__all__ = ["Metric"]


@dataclass(frozen=True)
class Metric(metaclass=Explained):
    """A number that says how good predictions are: ``metric(predictions, targets)`` over whole arrays of samples.

    ``name`` is its name in a history.
    """

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def __call__(self, predictions: NDArray[Any], targets: NDArray[Any]) -> float: ...

    def _same_shape(self, predictions: NDArray[Any], targets: NDArray[Any]) -> None:
        if predictions.shape != targets.shape:
            raise ValueError(
                f"[{type(self).__name__}] predictions are {predictions.shape}, targets {targets.shape}: must be the same"
            )
