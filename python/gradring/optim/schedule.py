"""Learning-rate schedules: pure functions from the number of updates done so far to a learning rate.

A schedule is called with a step (an ``int``, or an array of them) and knows nothing else, so it needs no state in a
checkpoint and a native loop can ask for a whole range of steps at once. Beyond its last step it holds its last value. (Only
``plateau`` reads a metric; its state is part of a trainer's state.) A plain ``float`` is accepted wherever a schedule is,
and so is any function from the step to a rate:

>>> import gradring as gr
>>> gr.optim.SGD(lambda step: 0.1 / (1 + step)).learning_rates(0, 2)
array([0.1 , 0.05])

The function must depend on nothing but the step, because rates are computed ahead of time. A subclass of
``Schedule`` has a method ``at``, from an array of steps to an array of rates, which is faster.

>>> lr = warmup(cosine(0.1, steps=90), steps=10)
>>> [round(lr(step), 3) for step in (0, 4, 9, 10, 55, 1000)]
[0.01, 0.05, 0.1, 0.1, 0.05, 0.0]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from gradring.arguments import real, whole
from gradring.habits import explained
from gradring.optim.plateau import Plateau, plateau
from gradring.optim.rates import Constant, Floats, Rate, Schedule, as_schedule, inner_schedule
from gradring.optim.rates import rate_of as _rate
from gradring.planned import getter

__all__ = [
    "Plateau",
    "Rate",
    "Schedule",
    "as_schedule",
    "constant",
    "cosine",
    "join",
    "linear",
    "one_cycle",
    "plateau",
    "polynomial",
    "step",
    "warmup",
]


@dataclass(frozen=True)
class _Linear(Schedule):
    start: float
    end: float
    steps: int

    def at(self, steps: Floats) -> Floats:
        done = np.minimum(steps / self.steps, 1.0)
        return self.start * (1.0 - done) + self.end * done


@dataclass(frozen=True)
class _Cosine(Schedule):
    start: float
    steps: int
    end: float

    def at(self, steps: Floats) -> Floats:
        done = np.minimum(steps / self.steps, 1.0)
        rates: Floats = self.end + (self.start - self.end) * 0.5 * (1.0 + np.cos(math.pi * done))
        return rates


@dataclass(frozen=True)
class _Step(Schedule):
    start: float
    every: int
    factor: float

    def at(self, steps: Floats) -> Floats:
        rates: Floats = self.start * self.factor ** np.floor(steps / self.every)
        return rates


@dataclass(frozen=True)
class _Warmup(Schedule):
    then: Schedule
    steps: int

    def at(self, steps: Floats) -> Floats:
        rising = self.then(0) * (steps + 1.0) / self.steps
        rates: Floats = np.where(steps < self.steps, rising, self.then.at(np.maximum(steps - self.steps, 0.0)))
        return rates


@dataclass(frozen=True)
class _Join(Schedule):
    schedules: tuple[Schedule, ...]
    starts: tuple[int, ...]

    def at(self, steps: Floats) -> Floats:
        rates = self.schedules[0].at(steps)
        for schedule, start in zip(self.schedules[1:], self.starts, strict=True):
            rates = np.where(steps < start, rates, schedule.at(np.maximum(steps - start, 0.0)))
        return rates


@dataclass(frozen=True)
class _Polynomial(Schedule):
    start: float
    steps: int
    end: float
    power: float

    def at(self, steps: Floats) -> Floats:
        left = 1.0 - np.minimum(steps / self.steps, 1.0)
        rates: Floats = self.end + (self.start - self.end) * left**self.power
        return rates


@dataclass(frozen=True)
class _OneCycle(Schedule):
    peak: float
    steps: int
    pct_start: float
    div_factor: float
    final_div_factor: float

    def at(self, steps: Floats) -> Floats:
        start = self.peak / self.div_factor
        top, last = self.pct_start * self.steps - 1, self.steps - 1
        up = _cosine_between(start, self.peak, steps / top) if top > 0 else np.full(steps.shape, self.peak)
        down = _cosine_between(
            self.peak, start / self.final_div_factor, np.minimum((steps - top) / max(last - top, 1e-300), 1.0)
        )
        return np.where(steps <= top, up, down)


def _cosine_between(start: float, end: float, done: Floats) -> Floats:
    rates: Floats = end + (start - end) * 0.5 * (1.0 + np.cos(math.pi * done))
    return rates


def _count(function: str, argument: str, value: int) -> int:
    return whole(function, argument, value, 1)


@explained("schedule.constant")
def constant(rate: float) -> Schedule:
    """The same rate at every step.

    >>> constant(0.1)(1000)
    0.1
    """
    return Constant(_rate("constant", "rate", rate))


@explained("schedule.linear")
def linear(start: float, end: float, steps: int) -> Schedule:
    """A straight line from ``start`` at step 0 to ``end`` at step ``steps`` and after."""
    return _Linear(_rate("linear", "start", start), _rate("linear", "end", end), _count("linear", "steps", steps))


@explained("schedule.cosine")
def cosine(start: float, steps: int, end: float = 0.0) -> Schedule:
    """Half a cosine from ``start`` at step 0 to ``end`` at step ``steps`` and after.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, without the restarts.
    """
    return _Cosine(_rate("cosine", "start", start), _count("cosine", "steps", steps), _rate("cosine", "end", end))


@explained("schedule.step")
def step(start: float, every: int, factor: float = 0.1) -> Schedule:
    """``start``, multiplied by ``factor`` after each ``every`` steps.

    >>> step(1.0, every=10, factor=0.5).range(9, 2)
    array([1. , 0.5])
    """
    return _Step(_rate("step", "start", start), _count("step", "every", every), _rate("step", "factor", factor))


@explained("schedule.polynomial")
def polynomial(start: float, steps: int, end: float = 0.0, power: float = 1.0) -> Schedule:
    """``end + (start - end) * (1 - step / steps) ** power``, and ``end`` from step ``steps`` on.

    >>> polynomial(1.0, steps=4, power=2.0).range(0, 5)
    array([1.    , 0.5625, 0.25  , 0.0625, 0.    ])
    """
    power = real("polynomial", "power", power, least=0)
    rates = _rate("polynomial", "start", start), _rate("polynomial", "end", end)
    return _Polynomial(rates[0], _count("polynomial", "steps", steps), rates[1], power)


@explained("schedule.one_cycle")
def one_cycle(
    peak: float, steps: int, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> Schedule:
    """Half a cosine from ``peak / div_factor`` up to ``peak`` in the share ``pct_start`` of the ``steps``, and another one
    down to ``peak / div_factor / final_div_factor`` at the last of them: ``torch.optim.lr_scheduler.OneCycleLR``.

    ``steps`` are updates: epochs times batches per epoch. Smith and Topin, "Super-Convergence", 2018.

    >>> one_cycle(1.0, steps=10).range(0, 3).round(3).tolist()
    [0.04, 0.52, 1.0]
    """
    where = "one_cycle"
    pct_start = real(where, "pct_start", pct_start, least=0)
    if pct_start > 1:
        raise ValueError(f"[{where}] pct_start is a share of the steps, from 0 to 1, got {pct_start}")
    div_factor, final_div_factor = (
        real(where, name, value, least=0)
        for name, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor))
    )
    if not (div_factor > 0 and final_div_factor > 0):
        raise ValueError(
            f"[{where}] div_factor and final_div_factor must be above 0, got {div_factor}, {final_div_factor}"
        )
    return _OneCycle(_rate(where, "peak", peak), _count(where, "steps", steps), pct_start, div_factor, final_div_factor)


@explained("schedule.warmup")
def warmup(then: Rate, steps: int) -> Schedule:
    """Rise in equal parts to the first rate of ``then``, reached at the last of ``steps`` steps; then follow
    ``then`` from its own step 0."""
    return _Warmup(inner_schedule(then, "warmup", "then"), _count("warmup", "steps", steps))


@explained("schedule.join")
def join(schedules: Sequence[Rate], starts: Sequence[int]) -> Schedule:
    """One schedule after another: ``schedules[i + 1]`` begins, at its own step 0, at step ``starts[i]``.

    >>> join([0.1, linear(0.1, 0.0, steps=2)], starts=[2]).range(0, 5)
    array([0.1 , 0.1 , 0.1 , 0.05, 0.  ])
    """
    if len(schedules) != len(starts) + 1:
        raise ValueError(
            f"[join] {len(schedules)} schedules need {max(len(schedules) - 1, 0)} starts, got {len(starts)}"
        )
    begins = tuple(_count("join", f"starts[{i}]", start) for i, start in enumerate(starts))
    if any(later <= earlier for earlier, later in pairwise(begins)):
        raise ValueError(f"[join] starts must rise, got {list(begins)}")
    return _Join(tuple(inner_schedule(s, "join", f"schedules[{i}]") for i, s in enumerate(schedules)), begins)


if not TYPE_CHECKING:
    __getattr__ = getter("gradring.optim.schedule")
