"""Stop when a metric no longer improves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import choice, real, whole
from gradring.callbacks.base import Callback, Run

__all__ = ["EarlyStop"]


class EarlyStop(Callback):
    """End the run when ``metric`` has not improved by more than ``min_delta`` for ``patience`` epochs.

    A metric with "accuracy" in its name improves upwards, any other downwards; ``mode="max"`` or ``"min"`` says it
    otherwise. With ``restore_best=True`` the parameters of the best epoch are put back at the end. ``best`` and
    ``best_epoch`` (from 0) tell which it was.
    """

    def __init__(
        self,
        metric: str = "val_loss",
        patience: int = 5,
        *,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = False,
    ) -> None:
        self.metric, self.patience = metric, whole("EarlyStop", "patience", patience, 1)
        self.min_delta = real("EarlyStop", "min_delta", min_delta, least=0)
        choice("EarlyStop", "mode", mode, ("auto", "min", "max"))
        up = mode == "max" or (mode == "auto" and "accuracy" in metric)
        self.restore_best = restore_best
        self._sign = 1.0 if up else -1.0
        self.best, self.best_epoch = math.nan, -1
        self._kept: dict[str, NDArray[Any]] = {}

    def on_fit_start(self, run: Run) -> None:
        self.best, self.best_epoch, self._kept = math.nan, -1, {}

    def on_epoch_end(self, run: Run) -> None:
        if self.metric not in run.metrics:
            hint = "; give fit validate=..." if self.metric.startswith("val_") else ""
            raise ValueError(f"[EarlyStop] there is no metric {self.metric!r}, only {list(run.metrics)}{hint}")
        value = run.metrics[self.metric]
        if self.best_epoch < 0 or math.isnan(self.best) or self._sign * (value - self.best) > self.min_delta:
            self.best, self.best_epoch = value, run.epoch
            if self.restore_best:
                self._kept = {name: array.copy() for name, array in run.trainer.params.items()}
        elif run.epoch - self.best_epoch >= self.patience:
            run.stop = f"{self.metric} has not improved since epoch {self.best_epoch + 1} ({self.best:.6g})"

    def on_fit_end(self, run: Run) -> None:
        for name, array in self._kept.items():
            np.copyto(run.trainer.params[name], array)
        self._kept = {}
