"""Whether a metric has improved."""

from __future__ import annotations

import math
from typing import Literal

from gradring.arguments import choice, real

__all__ = ["Improvement", "Mode"]

Mode = Literal["auto", "min", "max"]
_UP = ("accuracy", "top", "r2")


class Improvement:
    """The best value so far and its epoch (from 0).

    A metric with "accuracy", "top" or "r2" in its name improves upwards, any other downwards, unless ``mode`` is given.
    """

    def __init__(self, who: str, metric: str, mode: str, min_delta: float = 0.0) -> None:
        if not isinstance(metric, str):
            raise TypeError(f"[{who}] the metric must be a name such as 'val_loss', got {metric!r}")
        choice(who, "mode", mode, ("auto", "min", "max"))
        self.min_delta = real(who, "min_delta", min_delta, least=0)
        self._sign = 1.0 if mode == "max" or (mode == "auto" and any(part in metric for part in _UP)) else -1.0
        self.forget()

    def forget(self) -> None:
        self.best, self.epoch = math.nan, -1

    def found(self, value: float, epoch: int) -> bool:
        """Whether the epoch is the best so far. If so, it is recorded as the best."""
        if math.isnan(value) and self.epoch >= 0:
            return False
        if self.epoch < 0 or math.isnan(self.best) or self._sign * (value - self.best) > self.min_delta:
            self.best, self.epoch = value, epoch
            return True
        return False
