"""Stop when a metric no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import flag, whole
from gradring.callbacks.base import Callback, Run
from gradring.callbacks.improvement import Improvement, Mode
from gradring.nn.params import write

__all__ = ["EarlyStop"]

_KEPT = "kept/"


class EarlyStop(Callback):
    """End the run when ``metric`` has not improved by more than ``min_delta`` for ``patience`` epochs.

    A metric with "accuracy" in its name, ``r2`` and ``top5`` improve upwards, losses and errors downwards; any other needs
    ``mode="max"`` or ``"min"``. With ``restore_best=True`` the parameters of the best epoch are restored at the end, before a
    ``Checkpoint`` writes its last file; after Ctrl-C or an exception they stay as they are, so that the run can be resumed.
    ``best`` and ``best_epoch`` (from 0) say which epoch that was. A resumed run continues with the best value, the patience
    and the best parameters that the checkpoint has, so it also restores an epoch of the run before it. A run that it had
    stopped ends at once when it is resumed, unless ``patience`` or the run's ``epochs`` are larger now.
    """

    def __init__(
        self,
        metric: str = "val_loss",
        patience: int = 5,
        *,
        min_delta: float = 0.0,
        mode: Mode = "auto",
        restore_best: bool = False,
    ) -> None:
        self.metric, self.patience = metric, whole("EarlyStop", "patience", patience, 1)
        self._improvement = Improvement("EarlyStop", metric, mode, min_delta)
        self.min_delta = self._improvement.min_delta
        self.restore_best = flag("EarlyStop", "restore_best", restore_best)
        self._kept: dict[str, NDArray[Any]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}  # of what the current run would keep
        self._run: Run | None = None
        self._stopped = 0  # the epochs that the run should have had which this callback stopped

    @property
    def best(self) -> float:
        """The best value; NaN before the first epoch."""
        return self._improvement.best

    @property
    def best_epoch(self) -> int:
        """The epoch of the best value, from 0; -1 before the first epoch."""
        return self._improvement.epoch

    def on_fit_start(self, run: Run) -> None:
        self._improvement.begin(run)
        self._run, self._kept, self._stopped = run, {}, 0
        self._shapes = {name: array.shape for name, array in _saved(run).items()}

    def on_epoch_end(self, run: Run) -> None:
        if self.metric not in run.metrics:
            raise ValueError(f"[EarlyStop] there is no metric {self.metric!r}, only {list(run.metrics)}")
        if self._improvement.found(run.metrics[self.metric], run.epoch):
            if self.restore_best:
                self._kept = {name: array.copy() for name, array in _saved(run).items()}
        else:
            self._stop_after(run, run.epoch)

    def _stop_after(self, run: Run, epoch: int) -> None:
        """End the run if the patience is exhausted after this epoch."""
        if epoch - self.best_epoch >= self.patience:
            self._stopped = run.last_epoch
            run.stop = f"{self.metric} has not improved since epoch {self.best_epoch + 1} ({self.best:.6g})"

    def on_fit_end(self, run: Run) -> None:
        self._run = None
        # The copies stay until the next run: what is saved from here on may be resumed by a run that never gets better.
        if run.ended != "complete":  # a run that goes on from here must find the parameters of its last step
            return
        with run.writing():
            for name, array in self._kept.items():
                write(_saved(run)[name], array)

    def state_dict(self) -> dict[str, Any]:
        kept = {_KEPT + name: array for name, array in self._kept.items()}
        state = {"metric": self.metric, "best": self.best, "best_epoch": self.best_epoch, "stopped": self._stopped}
        return {**state, **kept}

    def _is_own(self, state: Mapping[str, Any]) -> bool:
        return state.get("metric") == self.metric

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["metric"] != self.metric:
            raise ValueError(f"[EarlyStop] the state is of metric {state['metric']!r}, this one has {self.metric!r}")
        best, epoch = float(state["best"]), int(state["best_epoch"])
        kept = {name.removeprefix(_KEPT): np.array(a) for name, a in state.items() if name.startswith(_KEPT)}
        if self.restore_best and epoch >= 0 and self._shapes:
            if not kept:
                raise ValueError(
                    f"[EarlyStop] the state lacks the parameters of its best epoch ({epoch + 1}), because it was saved without "
                    "restore_best=True: leave restore_best out here too, or start a new run from the file's parameters, by "
                    "trainer.load(path) and fit without resume"
                )
            if {name: array.shape for name, array in kept.items()} != self._shapes:
                raise ValueError("[EarlyStop] the state has the best parameters of another model")
        self._improvement.best, self._improvement.epoch = best, epoch
        self._kept = kept if self.restore_best else {}
        if self._run is not None and self._run.last_epoch <= int(state.get("stopped", 0)):
            self._stop_after(self._run, self._run.epoch - 1)


def _saved(run: Run) -> dict[str, NDArray[Any]]:
    """The parameters and buffers to keep: both must come from the same epoch."""
    return {**run.trainer.params, **run.trainer.buffers}
