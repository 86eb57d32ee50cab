"""Learning-rate schedules: pure functions from the number of updates done so far to a learning rate.

A schedule is called with a step (an ``int``, or an array of them) and knows nothing else, so it needs no state in a
checkpoint and a native loop can ask for a whole range of steps at once. Beyond its last step it holds its last value.
A plain ``float`` is accepted wherever a schedule is.

>>> lr = warmup(cosine(0.1, steps=90), steps=10)
>>> [round(lr(step), 3) for step in (0, 4, 9, 10, 55, 1000)]
[0.01, 0.05, 0.1, 0.1, 0.05, 0.0]
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, SupportsIndex, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.arguments import real, whole
from gradring.planned import getter

__all__ = ["Schedule", "as_schedule", "constant", "cosine", "join", "linear", "step", "warmup"]

Floats: TypeAlias = NDArray[np.float64]


class Schedule(ABC):
    """A learning rate as a function of the step, counted in updates from 0."""

    @abstractmethod
    def _at(self, steps: Floats) -> Floats:
        """Learning rates at an array of steps that are at least 0."""

    @overload
    def __call__(self, step: SupportsIndex) -> float: ...
    @overload
    def __call__(self, step: ArrayLike) -> Floats: ...
    def __call__(self, step: SupportsIndex | ArrayLike) -> float | Floats:
        steps = np.asarray(step, dtype=np.float64)
        if steps.size and not steps.min() >= 0:
            raise ValueError(f"[schedule] a step counts updates from 0, got {steps.min()}")
        rates = self._at(np.atleast_1d(steps))
        return float(rates[0]) if steps.ndim == 0 else rates.reshape(steps.shape)

    def range(self, first: int, count: int) -> Floats:
        """The learning rates of ``count`` consecutive steps from ``first``: a float64 array.

        >>> linear(1.0, 0.0, steps=4).range(2, 3)
        array([0.5 , 0.25, 0.  ])
        """
        if first < 0 or count < 0:
            raise ValueError(f"[schedule] first and count must be at least 0, got {first} and {count}")
        return self._at(np.arange(first, first + count, dtype=np.float64))


@dataclass(frozen=True)
class _Constant(Schedule):
    rate: float

    def _at(self, steps: Floats) -> Floats:
        return np.full(steps.shape, self.rate)


@dataclass(frozen=True)
class _Linear(Schedule):
    start: float
    end: float
    steps: int

    def _at(self, steps: Floats) -> Floats:
        done = np.minimum(steps / self.steps, 1.0)
        return self.start * (1.0 - done) + self.end * done


@dataclass(frozen=True)
class _Cosine(Schedule):
    start: float
    steps: int
    end: float

    def _at(self, steps: Floats) -> Floats:
        done = np.minimum(steps / self.steps, 1.0)
        rates: Floats = self.end + (self.start - self.end) * 0.5 * (1.0 + np.cos(math.pi * done))
        return rates


@dataclass(frozen=True)
class _Step(Schedule):
    start: float
    every: int
    factor: float

    def _at(self, steps: Floats) -> Floats:
        rates: Floats = self.start * self.factor ** np.floor(steps / self.every)
        return rates


@dataclass(frozen=True)
class _Warmup(Schedule):
    then: Schedule
    steps: int

    def _at(self, steps: Floats) -> Floats:
        rising = self.then(0) * (steps + 1.0) / self.steps
        rates: Floats = np.where(steps < self.steps, rising, self.then._at(np.maximum(steps - self.steps, 0.0)))
        return rates


@dataclass(frozen=True)
class _Join(Schedule):
    schedules: tuple[Schedule, ...]
    starts: tuple[int, ...]

    def _at(self, steps: Floats) -> Floats:
        rates = self.schedules[0]._at(steps)
        for schedule, start in zip(self.schedules[1:], self.starts, strict=True):
            rates = np.where(steps < start, rates, schedule._at(np.maximum(steps - start, 0.0)))
        return rates


def _rate(function: str, argument: str, value: float) -> float:
    return real(function, argument, value, least=0)


def _count(function: str, argument: str, value: int) -> int:
    return whole(function, argument, value, 1)


def as_schedule(rate: float | Schedule, function: str = "schedule", argument: str = "lr") -> Schedule:
    """A schedule as it is, or a float as a constant one; the two names go into the error."""
    return rate if isinstance(rate, Schedule) else _Constant(_rate(function, argument, rate))


def constant(rate: float) -> Schedule:
    """The same rate at every step.

    >>> constant(0.1)(1000)
    0.1
    """
    return _Constant(_rate("constant", "rate", rate))


def linear(start: float, end: float, steps: int) -> Schedule:
    """A straight line from ``start`` at step 0 to ``end`` at step ``steps`` and after."""
    return _Linear(_rate("linear", "start", start), _rate("linear", "end", end), _count("linear", "steps", steps))


def cosine(start: float, steps: int, end: float = 0.0) -> Schedule:
    """Half a cosine from ``start`` at step 0 to ``end`` at step ``steps`` and after.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, without the restarts.
    """
    return _Cosine(_rate("cosine", "start", start), _count("cosine", "steps", steps), _rate("cosine", "end", end))


def step(start: float, every: int, factor: float = 0.1) -> Schedule:
    """``start``, multiplied by ``factor`` after each ``every`` steps.

    >>> step(1.0, every=10, factor=0.5).range(9, 2)
    array([1. , 0.5])
    """
    return _Step(_rate("step", "start", start), _count("step", "every", every), _rate("step", "factor", factor))


def warmup(then: float | Schedule, steps: int) -> Schedule:
    """Rise in equal parts to the first rate of ``then``, reached at the last of ``steps`` steps; then follow it from
    its own step 0."""
    return _Warmup(as_schedule(then, "warmup", "then"), _count("warmup", "steps", steps))


def join(schedules: Sequence[float | Schedule], starts: Sequence[int]) -> Schedule:
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
    return _Join(tuple(as_schedule(s, "join", f"schedules[{i}]") for i, s in enumerate(schedules)), begins)


if not TYPE_CHECKING:
    __getattr__ = getter("gradring.optim.schedule")
