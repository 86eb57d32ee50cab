"""What the two ways to run an epoch share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from gradring.loader import Loader

__all__ = ["REPORT_SECONDS", "Mean", "Report", "batches_of"]

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


def batches_of(source: Any, epoch: int | None = None, start: int = 0) -> Iterator[Any]:
    """The batches of an epoch (None: the one at hand) from number ``start`` on; of a source that cannot begin there,
    the first are skipped."""
    if epoch is not None and hasattr(source, "set_epoch"):
        source.set_epoch(epoch)
    if isinstance(source, Loader):
        return source.batches(start)
    return itertools.islice(iter(source), start, None)
