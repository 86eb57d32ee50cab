"""What the two ways to run an epoch share."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from gradring.loader import Loader

__all__ = ["REPORT_SECONDS", "EpochPlace", "Mean", "Report", "batches_of"]

REPORT_SECONDS = 0.1

# report(batches done in this epoch, running metrics)
Report: TypeAlias = Callable[[int, dict[str, float]], None]


class Mean:
    """A weighted mean; NaN of nothing."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, value: float, weight: float) -> None:
        self._sum += value * weight
        self._weight += weight

    @property
    def value(self) -> float:
        return self._sum / self._weight if self._weight else float("nan")


class EpochPlace(ABC):
    """Where an epoch is. A callback's own steps are none of it."""

    _first = 0  # passes before the epoch's first batch
    _told: int | None = None

    @abstractmethod
    def _passes(self) -> tuple[int, int]:
        """Batches whose gradients were computed so far, and how many of them wait for an update."""

    def begin(self, start: int) -> None:
        """The next batch is the epoch's number ``start``."""
        self._first = self._passes()[0] - start

    def batches(self) -> int:
        """Batches of the epoch at hand whose gradients the parameters have."""
        passes, pending = self._passes()
        return passes - pending - self._first if self._told is None else self._told

    def tell(self, report: Report, done: int, metrics: dict[str, float]) -> None:
        """Call ``report``, which may take steps of its own."""
        before, self._told = self._passes()[0], self.batches()
        try:
            report(done, metrics)
        finally:
            self._first += self._passes()[0] - before
            self._told = None


def batches_of(source: Any, epoch: int | None = None, start: int = 0) -> Iterator[Any]:
    """The batches of an epoch (None: the one at hand) from number ``start`` on; of a source that cannot begin there,
    the first are skipped."""
    if epoch is not None and hasattr(source, "set_epoch"):
        source.set_epoch(epoch)
    if isinstance(source, Loader):
        return source.batches(start)
    return itertools.islice(iter(source), start, None)
