"""Learning rates: numbers, schedules, or functions from the step to a number."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, SupportsIndex, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.arguments import real

__all__ = ["Constant", "Custom", "Floats", "Rate", "Schedule", "as_schedule", "inner_schedule", "rate_of"]

Floats: TypeAlias = NDArray[np.float64]


class Schedule(ABC):
    """A learning rate as a function of the step, counted in updates from 0.

    A schedule of your own is a subclass with the method ``at``; make it a frozen dataclass, so that it compares and prints
    by its values:

    >>> @dataclass(frozen=True)
    ... class InverseRoot(Schedule):
    ...     peak: float
    ...
    ...     def at(self, steps):
    ...         return self.peak / np.sqrt(1 + steps)
    >>> InverseRoot(0.1).range(0, 4).round(3).tolist()
    [0.1, 0.071, 0.058, 0.05]
    """

    outermost: ClassVar[bool] = False  # whether this schedule may not be inside another one

    @abstractmethod
    def at(self, steps: Floats) -> Floats:
        """Learning rates at an array of steps that are at least 0: finite, not negative, and of the same shape."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "_at" in vars(cls):
            raise TypeError(f"[{cls.__name__}] a schedule's method is called at, without an underscore: rename _at")

    def _checked(self, steps: Floats) -> Floats:
        rates: Any = np.asarray(self.at(steps), np.float64)
        if rates.shape != steps.shape:
            raise ValueError(
                f"[{type(self).__name__}] at returned {rates.shape} for steps of {steps.shape}: must be the same shape"
            )
        bad = np.flatnonzero(~((rates >= 0) & (rates < math.inf)))
        if bad.size:
            raise ValueError(
                f"[{type(self).__name__}] the rate at step {int(steps[bad[0]])} is {rates[bad[0]]}: must be a finite number "
                "of at least 0"
            )
        return np.asarray(rates)

    @overload
    def __call__(self, step: SupportsIndex) -> float: ...
    @overload
    def __call__(self, step: ArrayLike) -> Floats: ...
    def __call__(self, step: SupportsIndex | ArrayLike) -> float | Floats:
        steps = np.asarray(step, dtype=np.float64)
        if steps.size and not steps.min() >= 0:
            raise ValueError(f"[schedule] a step counts updates from 0, got {steps.min()}")
        rates = self._checked(steps.reshape(-1))
        return float(rates[0]) if steps.ndim == 0 else rates.reshape(steps.shape)

    def range(self, first: int, count: int) -> Floats:
        """The learning rates of ``count`` consecutive steps from ``first``: a float64 array.

        >>> from gradring.optim.schedule import linear
        >>> linear(1.0, 0.0, steps=4).range(2, 3)
        array([0.5 , 0.25, 0.  ])
        """
        if first < 0 or count < 0:
            raise ValueError(f"[schedule] first and count must be at least 0, got {first} and {count}")
        return self._checked(np.arange(first, first + count, dtype=np.float64))


@dataclass(frozen=True)
class Constant(Schedule):
    rate: float

    def at(self, steps: Floats) -> Floats:
        return np.full(steps.shape, self.rate)


@dataclass(frozen=True)
class Custom(Schedule):
    function: Callable[[int], float]

    def at(self, steps: Floats) -> Floats:
        rates = np.empty(steps.shape)
        for number, at in enumerate(steps.tolist()):
            made = self.function(int(at))
            try:
                rates[number] = made
            except (TypeError, ValueError):
                raise TypeError(
                    f"[schedule] {self.function!r} gave {made!r} at step {int(at)}: must be a finite number of at least 0"
                ) from None
        return rates


def rate_of(function: str, argument: str, value: float) -> float:
    """A finite number of at least 0."""
    return real(function, argument, value, least=0)


Rate: TypeAlias = float | Schedule | Callable[[int], float]
"""The types that are accepted as a learning rate."""


def as_schedule(rate: Rate, function: str = "schedule", argument: str = "lr") -> Schedule:
    """Convert a learning rate to a schedule: a float becomes a constant one, and a function becomes one that calls it.
    The two names go into errors."""
    if isinstance(rate, Schedule):
        return rate
    if isinstance(rate, type):
        raise TypeError(f"[{function}] {argument} is the class {rate.__name__}: make one, {rate.__name__}(...)")
    return Custom(rate) if callable(rate) else Constant(rate_of(function, argument, rate))


def inner_schedule(rate: Rate, function: str, argument: str) -> Schedule:
    """A schedule inside another one."""
    if isinstance(rate, Schedule) and rate.outermost:
        raise TypeError(f"[{function}] {argument} is a plateau, which must be outermost: plateau({function}(...), ...)")
    return as_schedule(rate, function, argument)
