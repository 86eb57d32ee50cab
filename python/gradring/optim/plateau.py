"""A learning rate that falls when a metric no longer improves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from gradring.arguments import choice, real, whole
from gradring.habits import explained
from gradring.optim.rates import Floats, Rate, Schedule, as_schedule

__all__ = ["Plateau", "PlateauState", "improves_upwards", "plateau"]

# What the names of metrics say about them, as far as these are common.
_UP = re.compile(r"accuracy|^r2$|^top\d*$")
_DOWN = re.compile(r"loss|error|deviance|perplexity|^(r?ms|ma)l?e$|^(epoch|lr\d*|seconds)$")


def improves_upwards(who: str, metric: str, mode: Any) -> bool:
    """Whether more of a metric is better. ``ValueError`` if neither its name nor ``mode`` says so, because a wrong guess would
    keep the worst epoch.

    >>> improves_upwards("EarlyStop", "val_accuracy", "auto"), improves_upwards("EarlyStop", "loss", "auto")
    (True, False)
    """
    choice(who, "mode", mode, ("auto", "min", "max"))
    plain = metric.removeprefix("val_")
    up, down = _UP.search(plain) is not None, _DOWN.search(plain) is not None
    if mode == "auto" and not up and not down:
        raise ValueError(
            f"[{who}] the name {metric!r} does not say whether more of it is better: give mode='max' if it is, else mode='min'"
        )
    return mode == "max" or (mode == "auto" and up)


@dataclass(frozen=True)
class PlateauState:
    """The state of a plateau schedule: the best value, the epochs since then, the epochs of cooldown that are left, and
    the current factor of the rate."""

    best: float = math.nan
    bad: int = 0
    wait: int = 0
    factor: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """The state in a form that JSON can hold."""
        return {
            "best": None if math.isnan(self.best) else self.best,
            "bad": self.bad,
            "wait": self.wait,
            "factor": self.factor,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> PlateauState:
        """Restore a state from the result of ``as_dict``; ``ValueError`` if it is no such result."""
        best = math.nan if state["best"] is None else float(state["best"])
        bad, wait, factor = int(state["bad"]), int(state["wait"]), float(state["factor"])
        if bad < 0 or wait < 0 or not 0 <= factor <= 1:
            raise ValueError(f"the state of a plateau is {dict(state)}")
        return cls(best, bad, wait, factor)


@dataclass(frozen=True)
class Plateau(Schedule):
    """The schedule that ``plateau`` makes. It has no state: a trainer keeps a ``PlateauState`` for each such
    schedule."""

    then: Schedule
    monitor: str
    factor: float
    patience: int
    threshold: float
    cooldown: int
    least: float
    mode: str

    outermost: ClassVar[bool] = True

    def at(self, steps: Floats) -> Floats:
        return self.then.at(steps)

    def reduced(self, rates: Floats, factor: float) -> Floats:
        """The rates after a reduction to ``factor`` of themselves."""
        if factor == 1.0:
            return rates
        return np.minimum(rates, np.maximum(rates * factor, self.least))

    def seen(self, state: PlateauState, value: float) -> PlateauState:
        """The state after an epoch whose metric was ``value``."""
        up = improves_upwards("plateau", self.monitor, self.mode)
        margin = self.threshold * abs(state.best)
        better = math.isnan(state.best) or (value > state.best + margin if up else value < state.best - margin)
        best = value if better and not math.isnan(value) else state.best
        bad = 0 if better and not math.isnan(value) else state.bad + 1
        wait = state.wait
        if wait > 0:
            wait, bad = wait - 1, 0
        if bad > self.patience:
            return PlateauState(best, 0, self.cooldown, state.factor * self.factor)
        return PlateauState(best, bad, wait, state.factor)


@explained("schedule.plateau")
def plateau(
    then: Rate,
    monitor: str = "val_loss",
    factor: float = 0.1,
    patience: int = 10,
    *,
    threshold: float = 1e-4,
    cooldown: int = 0,
    least: float = 0.0,
    mode: Literal["auto", "min", "max"] = "auto",
) -> Schedule:
    """``then``, multiplied by ``factor`` whenever ``monitor`` has not improved for more than ``patience`` epochs of ``fit``.

    An improvement is one by more than ``threshold`` of the best value so far. After a reduction ``cooldown`` epochs do not
    count. No rate is reduced below ``least``. A metric with "accuracy" in its name, ``r2`` and ``top5`` improve upwards,
    losses and errors downwards; any other needs ``mode="max"`` or ``"min"``. ``monitor`` is a name in the history, such as
    ``"loss"`` or ``"val_accuracy"``. The trainer keeps the state of the schedule, and its checkpoints hold it. The rule is
    that of PyTorch's ``ReduceLROnPlateau``.

    >>> import gradring as gr
    >>> optimizer = gr.optim.AdamW(gr.optim.schedule.plateau(1e-3, "loss", factor=0.5, patience=3))
    """
    if not isinstance(monitor, str):
        raise TypeError(f"[plateau] monitor must be a metric's name such as 'val_loss', got {monitor!r}")
    choice("plateau", "mode", mode, ("auto", "min", "max"))
    factor = real("plateau", "factor", factor, least=0, below=1.0)
    inside = as_schedule(then, "plateau", "then")
    if inside.outermost:
        raise TypeError("[plateau] then is a plateau itself: one is enough")
    return Plateau(
        inside,
        monitor,
        factor,
        whole("plateau", "patience", patience, 0),
        real("plateau", "threshold", threshold, least=0),
        whole("plateau", "cooldown", cooldown, 0),
        real("plateau", "least", least, least=0),
        mode,
    )
