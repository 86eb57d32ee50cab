"""What the two ways to run an epoch share."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from gradring.loader import Loader

__all__ = ["REPORT_SECONDS", "EpochPlace", "Mean", "Report", "batches_of", "length_of", "require_names", "x_and_y"]

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

    limit: int | None = None  # of batches in an epoch
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


def batches_of(source: Any, epoch: int | None = None, start: int = 0, limit: int | None = None) -> Iterator[Any]:
    """The batches of an epoch (None: the one at hand) from number ``start`` on, up to number ``limit`` or the source's
    length; of a source that cannot begin there, the first are skipped."""
    if epoch is not None and hasattr(source, "set_epoch"):
        source.set_epoch(epoch)
    if isinstance(source, Loader):
        return itertools.islice(source.batches(start), None if limit is None else max(limit - start, 0))
    ends = [end for end in (length_of(source), limit) if end is not None]
    # islice takes no batch beyond the last one, so that a source without an end is not asked for more.
    return itertools.islice(iter(source), start, max(min(ends), start) if ends else None)


def length_of(source: Any) -> int | None:
    """The batches of an epoch, if the source can tell."""
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        return None


def x_and_y(batch: Any) -> tuple[Any, Any]:
    """The fields of a batch: by name from a dict, else by position."""
    if isinstance(batch, Mapping):
        require_names("a batch", [*batch])
        return batch["x"], batch["y"]
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    got = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__
    raise TypeError(f"[Trainer] a batch must be (x, y) or a dict of 'x' and 'y', got {got}")


def require_names(what: str, names: Sequence[Any]) -> None:
    """``ValueError`` unless these are the names of what a model is trained on."""
    if set(names) != {"x", "y"}:
        raise ValueError(
            f"[Trainer] {what} has the fields {', '.join(map(repr, names))}: training takes them by name, and needs 'x' "
            "and 'y' alone"
        )
