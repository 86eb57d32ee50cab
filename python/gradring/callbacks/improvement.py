"""Whether a metric has improved."""

from __future__ import annotations

import math
from typing import Literal

from gradring.arguments import choice, real
from gradring.callbacks.base import Run
from gradring.optim.plateau import improves_upwards

__all__ = ["Improvement", "Mode"]

Mode = Literal["auto", "min", "max"]


class Improvement:
    """The best value so far and its epoch (from 0).

    A metric with "accuracy" in its name, "r2" and "top5" improve upwards, one with "loss" or "error" in its name, "mae" and
    "mse" downwards. For any other, ``mode`` must be given, because a wrong guess would keep the worst epoch.
    """

    def __init__(self, who: str, metric: str, mode: str, min_delta: float = 0.0) -> None:
        if not isinstance(metric, str):
            raise TypeError(f"[{who}] the metric must be a name such as 'val_loss', got {metric!r}")
        choice(who, "mode", mode, ("auto", "min", "max"))
        self.min_delta = real(who, "min_delta", min_delta, least=0)
        self._who, self._metric, self._mode, self._sign = who, metric, mode, 0.0
        self.forget()

    def forget(self) -> None:
        self.best, self.epoch = math.nan, -1

    def begin(self, run: Run) -> None:
        """Begin anew in a run. ``ValueError`` if it will not have the metric, or nothing says which way that improves."""
        run.require_metric(self._who, self._metric)
        self._sign = 1.0 if improves_upwards(self._who, self._metric, self._mode) else -1.0
        self.forget()

    def found(self, value: float, epoch: int) -> bool:
        """Whether the epoch is the best so far. If so, it is recorded as the best."""
        if math.isnan(value) and self.epoch >= 0:
            return False
        if self.epoch < 0 or math.isnan(self.best) or self._sign * (value - self.best) > self.min_delta:
            self.best, self.epoch = value, epoch
            return True
        return False
