"""Lower the learning rate when a metric no longer improves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gradring.arguments import real, whole
from gradring.callbacks.base import Callback, Run
from gradring.callbacks.improvement import Improvement, Mode
from gradring.optim import Optimizer

__all__ = ["ReduceLROnPlateau"]

_LOG = logging.getLogger("gradring.trainer")


class ReduceLROnPlateau(Callback):
    """Multiply the learning rate by ``factor`` when ``metric`` has not improved by more than ``min_delta`` for
    ``patience`` epochs.

    Then ``cooldown`` epochs do not count, and the rate never falls below ``min_lr``. Which way a metric improves is as for
    ``EarlyStop``. The optimizer's rate must be a number, not a schedule (``ValueError`` before the first step); rates of
    groups of parameters fall with it. The trainer keeps the lower rate after the run, and a resumed run goes on with the
    rate, the best and the patience that the checkpoint has.
    """

    def __init__(
        self,
        metric: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        *,
        min_delta: float = 1e-4,
        mode: Mode = "auto",
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        self.metric, self.patience = metric, whole("ReduceLROnPlateau", "patience", patience, 1)
        self.factor = real("ReduceLROnPlateau", "factor", factor, above=0, below=1)
        self.cooldown = whole("ReduceLROnPlateau", "cooldown", cooldown, 0)
        self.min_lr = real("ReduceLROnPlateau", "min_lr", min_lr, least=0)
        self._improvement = Improvement("ReduceLROnPlateau", metric, mode, min_delta)
        self._waited = self._rest = 0
        self._rate = 0.0  # as it is now
        self._run: Run | None = None

    def on_fit_start(self, run: Run) -> None:
        run.require_metric("ReduceLROnPlateau", self.metric)
        if callable(run.trainer.optimizer.lr):
            raise ValueError(
                "[ReduceLROnPlateau] the optimizer's learning rate is a schedule, which says what each step takes: give the "
                "optimizer a number, or leave the callback out"
            )
        self._improvement.forget()
        self._waited = self._rest = 0
        self._run, self._rate = run, _rate(run)

    def on_epoch_end(self, run: Run) -> None:
        resting = self._rest > 0
        if resting:
            self._rest, self._waited = self._rest - 1, 0
        if self._improvement.found(run.metrics[self.metric], run.epoch):
            self._waited = 0
        elif not resting:
            self._waited += 1
            if self._waited >= self.patience:
                self._waited, self._rest = 0, self.cooldown
                self._set(run, max(_rate(run) * self.factor, self.min_lr))

    def on_fit_end(self, run: Run) -> None:
        self._run = None

    def _set(self, run: Run, rate: float) -> None:
        before, self._rate = _rate(run), rate
        if rate != before:
            _LOG.info("epoch %d: the learning rate falls from %g to %g", run.epoch + 1, before, rate)
            run.trainer.optimizer = _with_rate(run.trainer.optimizer, rate, rate / before)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"best": self._improvement.best, "best_epoch": self._improvement.epoch}
        return {**state, "waited": self._waited, "rest": self._rest, "lr": self._rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._improvement.best, self._improvement.epoch = float(state["best"]), int(state["best_epoch"])
        self._waited, self._rest = int(state["waited"]), int(state["rest"])
        rate = real("ReduceLROnPlateau", "state['lr']", state["lr"], least=0)
        if self._run is not None and _rate(self._run) > 0:
            self._set(self._run, rate)


def _rate(run: Run) -> float:
    return float(run.trainer.optimizer.lr)  # type: ignore[arg-type]  # on_fit_start has refused schedules


def _with_rate(optimizer: Optimizer, rate: float, factor: float) -> Optimizer:
    """The same optimizer with this rate; the rates of its groups, where it has groups, change by the factor."""
    changes: dict[str, Any] = {"lr": rate}
    groups = getattr(optimizer, "groups", ())
    if groups:
        changes["groups"] = [
            {"params": group.params, **group.options, **_lowered(group.options, factor)} for group in groups
        ]
    return replace(optimizer, **changes)


def _lowered(options: Mapping[str, Any], factor: float) -> dict[str, Any]:
    return {"lr": options["lr"] * factor} if "lr" in options and not callable(options["lr"]) else {}
