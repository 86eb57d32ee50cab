"""The steps of a model that a CUDA device has not reported yet."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gradring.cuda import Number
from gradring.errors import GradringError
from gradring.session.batch import Bound

__all__ = ["Ahead", "Step"]

_MOST_KEPT = 1 << 16  # bytes of a batch that are copied so that an error can name a bad number


@dataclass(eq=False)
class Step:
    """A step that is queued, and what its error would need."""

    number: int
    bound: Bound | None
    """The batch: a copy of a small one on the host, because the caller may change it; one on the device itself, but only until
    the next step comes, because it may be a loader's slot."""
    batch: int
    """Its number in an epoch."""
    many: bool
    """Whether it belongs to an epoch."""
    plan: Any
    copied: bool = False
    loss: float | None = None
    error: Exception | None = None


class Ahead:
    """Queues steps on a session's native engine, and keeps each of them until the device has reported it."""

    def __init__(
        self,
        native: Any,
        explain: Callable[[Step, Mapping[str, Any]], Exception],
        missing: Callable[[Mapping[str, Any]], Exception],
    ) -> None:
        self._native, self._explain, self._missing = native, explain, missing
        self._steps: deque[Step] = deque()
        self._held: Exception | None = None  # of a step that has failed, and that nothing has raised

    @property
    def updates(self) -> int:
        """How many updates there are when all steps are done."""
        return int(self._native.queued_updates)

    def queue(self, feed: Any, rates: Any, bound: Bound, batch: int, many: bool, plan: Any) -> Number:
        """Queue a step, and return its loss. Raises the error of an earlier step that has failed."""
        if self._steps and not self._steps[-1].copied:
            self._steps[-1].bound = None
        kept, copied = _kept(bound)
        number = self._native.step(feed, rates, bound.weight is not None)
        if isinstance(number, dict):
            raise self._missing(number)
        if number is None:
            self.listen()
            raise GradringError("[step] an earlier step has failed")
        step = Step(number, kept, batch, many, plan, copied)
        self._steps.append(step)
        return Number(partial(self._read, step))

    def listen(self, last: int = -1) -> None:
        """Take the losses of steps that are done, and wait for step number ``last``. Raises the error of one that has failed,
        unless it has been raised already."""
        self._take(last)
        error, self._held = self._held, None
        if error is not None:
            raise error

    def settle(self) -> None:
        """The same, for all steps."""
        self._native.settle()
        self.listen()

    def drop(self) -> None:
        """Wait for all steps, and forget an error that nothing has raised."""
        self._native.settle()
        self._take(-1)
        self._held = None

    # A signal may interrupt this between any two lines, so the engine keeps what it says until all of it is noted here.
    def _take(self, last: int) -> None:
        steps = self._steps
        first, losses = self._native.losses(steps[0].number if steps else sys.maxsize, last)
        while steps and steps[0].number < first + len(losses):
            step = steps[0]
            if step.number >= first:
                step.loss = losses[step.number - first]
            step.bound = step.plan = None
            steps.popleft()
        failure = self._native.failure()
        if failure is None:
            return
        number, result = failure
        failed = steps[0] if steps and steps[0].number == number else Step(number, None, 0, False, None)
        error = self._explain(failed, result)
        for step in steps:
            step.error = GradringError(f"[step] this step has changed nothing, because one before it had failed: {error}")
        failed.error = self._held = error
        self._native.forget_failure()
        steps.clear()

    def _read(self, step: Step) -> float:
        if step.loss is None and step.error is None:
            self._take(step.number)
        if step.error is not None:
            if self._held is step.error:
                self._held = None
            raise step.error
        if step.loss is None:
            raise GradringError("[step] the loss of this step is not known")
        return step.loss


def _kept(bound: Bound) -> tuple[Bound | None, bool]:
    """What a step keeps of its batch, and whether it is a copy."""
    arrays = bound.arrays
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return bound, False
    if sum(array.nbytes for array in arrays) > _MOST_KEPT:
        return None, True
    return replace(bound, fields=tuple(array.copy() for array in arrays), weight=None, spare={}), True
