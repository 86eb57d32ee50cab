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

    After that, ``cooldown`` epochs do not count. The rate never falls below ``min_lr``. The direction in which a metric
    improves is the same as for ``EarlyStop``. The optimizer's rate must be a number, not a schedule (``ValueError`` before
    the first step); rates of groups of parameters fall with it. The trainer keeps the lower rate after the run, and a
    resumed run continues with the rate, the best value and the patience that the checkpoint has.
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
        self._rate = 0.0  # the current rate
        self._group_rates: list[float | None] = []
        self._run: Run | None = None

    def on_fit_start(self, run: Run) -> None:
        self._improvement.begin(run)
        if any(callable(rate) for rate in run.trainer.optimizer.rates):
            raise ValueError(
                "[ReduceLROnPlateau] a learning rate of the optimizer, its own or that of a group, is a schedule, which says "
                "what each step takes: give the optimizer numbers, or leave the callback out"
            )
        self._waited = self._rest = 0
        self._run, self._rate = run, _rate(run)
        self._group_rates = _group_rates(run.trainer.optimizer)

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
                rate = _rate(run)
                self._set(run, min(rate, max(rate * self.factor, self.min_lr)))

    def on_fit_end(self, run: Run) -> None:
        self._run = None

    def _set(self, run: Run, rate: float, groups: list[float | None] | None = None) -> None:
        before, self._rate = _rate(run), rate
        if rate != before:
            _LOG.info("epoch %d: the learning rate falls from %g to %g", run.epoch + 1, before, rate)
            if groups is None:
                groups = [old and old * (rate / before) for old in _group_rates(run.trainer.optimizer)]
            self._group_rates = groups
            run.trainer.optimizer = _with_rates(run.trainer.optimizer, rate, groups)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"metric": self.metric, "best": self._improvement.best, "best_epoch": self._improvement.epoch}
        return {**state, "waited": self._waited, "rest": self._rest, "lr": self._rate, "groups": self._group_rates}

    def _is_own(self, state: Mapping[str, Any]) -> bool:
        return state.get("metric") == self.metric

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("metric", self.metric) != self.metric:
            raise ValueError(f"[ReduceLROnPlateau] the state is of metric {state['metric']!r}, this one has {self.metric!r}")
        self._improvement.best, self._improvement.epoch = float(state["best"]), int(state["best_epoch"])
        self._waited, self._rest = int(state["waited"]), int(state["rest"])
        rate = real("ReduceLROnPlateau", "state['lr']", state["lr"], least=0)
        if self._run is None or _rate(self._run) <= 0:
            return
        saved, own = state.get("groups"), _group_rates(self._run.trainer.optimizer)
        if saved is None or [one is None for one in saved] != [one is None for one in own]:
            return self._set(self._run, rate)  # the saved groups differ: change all rates by the same factor
        what = "state['groups']"
        rates = [None if one is None else real("ReduceLROnPlateau", what, one, least=0) for one in saved]
        self._set(self._run, rate, rates)


def _rate(run: Run) -> float:
    return float(run.trainer.optimizer.lr)  # type: ignore[arg-type]  # on_fit_start has refused schedules


def _group_rates(optimizer: Optimizer) -> list[float | None]:
    """The rate of each group; None for a group without a number of its own."""
    rates = [group.options.get("lr") for group in getattr(optimizer, "groups", ())]
    return [None if rate is None or callable(rate) else float(rate) for rate in rates]


def _with_rates(optimizer: Optimizer, rate: float, groups: list[float | None]) -> Optimizer:
    """The same optimizer with these rates."""
    changes: dict[str, Any] = {"lr": rate}
    if groups:
        before: Any = optimizer.groups
        changes["groups"] = [
            {"params": group.params, **group.options, **({} if own is None else {"lr": own})}
            for group, own in zip(before, groups, strict=True)
        ]
    return replace(optimizer, **changes)
