"""Losses that measure how far outputs are from targets of the same shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gradring.arguments import real
from gradring.losses.base import Loss, Native, Reduction

__all__ = ["MAE", "MSE", "Huber"]


@dataclass(frozen=True)
class _Regression(Loss):
    reduction: Reduction = "mean"

    counts_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._check_reduction(self.reduction)

    def native(self) -> Native:
        return Native(self.kind, self._attributes(), {})

    def _attributes(self) -> dict[str, Any]:
        return {} if self.reduction == "mean" else {"reduction": "sum"}


@dataclass(frozen=True)
class MSE(_Regression):
    """The mean of ``(outputs - targets)**2`` over all elements; targets have the shape of the outputs.

    >>> MSE()
    MSE(reduction='mean')
    """

    kind: ClassVar[str] = "mse"


@dataclass(frozen=True)
class MAE(_Regression):
    """The mean of ``|outputs - targets|`` over all elements (L1); targets have the shape of the outputs.

    >>> MAE()
    MAE(reduction='mean')
    """

    kind: ClassVar[str] = "mae"


@dataclass(frozen=True)
class Huber(Loss):
    """The mean over all elements of ``d**2 / 2`` where ``d = |outputs - targets|`` is at most ``delta``, and of
    ``delta * (d - delta / 2)`` beyond: it is quadratic near the target, and outliers have less influence.

    >>> Huber(0.5)
    Huber(delta=0.5, reduction='mean')
    """

    delta: float = 1.0
    reduction: Reduction = "mean"

    kind: ClassVar[str] = "huber"
    counts_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", float(real("Huber", "delta", self.delta, above=0)))
        self._check_reduction(self.reduction)

    def native(self) -> Native:
        attributes: dict[str, Any] = {"delta": self.delta}
        if self.reduction == "sum":
            attributes["reduction"] = "sum"
        return Native("huber", attributes, {})
