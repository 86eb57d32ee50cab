"""The mean squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gradring.losses.base import Loss

__all__ = ["MSE"]


@dataclass(frozen=True)
class MSE(Loss):
    """The mean of ``(outputs - targets)**2`` over all elements; targets have the shape of the outputs.

    >>> MSE()
    MSE()
    """

    kind: ClassVar[str] = "mse"
    counts_right: ClassVar[bool] = False

    def target_dtype(self, dtype: str) -> str:
        return dtype
