"""Stop when a metric no longer improves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            raise ValueError(f"[EarlyStop] patience must be an int of at least 1, got {patience!r}")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"[EarlyStop] mode must be 'auto', 'min' or 'max', got {mode!r}")
        if not min_delta >= 0:
            raise ValueError(f"[EarlyStop] min_delta must be at least 0, got {min_delta!r}")
        up = mode == "max" or (mode == "auto" and "accuracy" in metric)
        self.metric, self.patience, self.min_delta = metric, patience, min_delta
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
