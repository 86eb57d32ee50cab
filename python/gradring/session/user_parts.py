"""Steps of a user's own that are computed in parts, on several threads: how a batch is cut, and how results are added up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Crew", "StepResult", "cut", "parts_of_batch", "rows_of_batch", "together", "tree"]

Array = NDArray[Any]


class StepResult(NamedTuple):
    """A loss that is the mean over ``samples`` samples, and its gradients; if ``summed``, the sum over the samples and its
    gradients."""

    loss: float
    grads: dict[str, Array]
    samples: float
    summed: bool = False

    @property
    def mean(self) -> float:
        return self.loss / self.samples if self.summed else self.loss

    @property
    def total(self) -> float:
        return self.loss if self.summed else self.loss * self.samples

    def as_sum(self) -> StepResult:
        """The same with sums over the samples."""
        if self.summed:
            return self
        grads = {name: np.asarray(grad * grad.dtype.type(self.samples)) for name, grad in self.grads.items()}
        return StepResult(self.total, grads, self.samples, summed=True)


def _rows(field: Any) -> int:
    shape = getattr(field, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else -1
    return len(field) if hasattr(field, "__len__") and not isinstance(field, (str, bytes, Mapping)) else -1


def _fields(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.values())
    several = isinstance(batch, (tuple, list)) and any(hasattr(field, "shape") for field in batch)
    return list(batch) if several else [batch]


def rows_of_batch(batch: Any) -> int:
    """The rows of an array, or of a tuple, list or dict of arrays of as many rows; ``TypeError`` for all else."""
    found = {_rows(field) for field in _fields(batch)}
    if len(found) != 1 or min(found) < 0:
        raise TypeError(
            "[step] replicas and shards cut a batch along the first axis of its arrays, so it must be an array, or a tuple, "
            f"list or dict of arrays of as many rows; got {type(batch).__name__} with {sorted(found)} rows (-1: none)"
        )
    return found.pop()


def cut(batch: Any, ends: Sequence[int]) -> list[Any]:
    """The parts of a batch that end at these rows, of which the first begins at row 0; None for a part without rows."""
    parts: list[Any] = []
    for begin, end in zip([0, *ends], ends, strict=False):
        piece = [field[begin:end] for field in _fields(batch)]
        if end <= begin:
            parts.append(None)
        elif isinstance(batch, Mapping):
            parts.append(dict(zip(batch, piece, strict=True)))
        elif isinstance(batch, (tuple, list)) and any(hasattr(field, "shape") for field in batch):
            parts.append(tuple(piece) if isinstance(batch, tuple) else piece)
        else:
            parts.append(piece[0])
    return parts


def parts_of_batch(batch: Any, count: int) -> list[Any]:
    """Cut a batch into ``count`` parts. Of n rows, part i has those from n i / count to n (i + 1) / count; if these are no
    rows, it is None. A batch is an array, or a tuple, list or dict of arrays of as many rows.

    >>> parts_of_batch((np.arange(5), np.arange(5)), 2)
    [(array([0, 1]), array([0, 1])), (array([2, 3, 4]), array([2, 3, 4]))]
    """
    rows = rows_of_batch(batch)
    if not rows:
        raise ValueError(
            "[step] the batch has no rows: replicas and shards cut a batch along the first axis of its arrays"
        )
    return cut(batch, [rows * (part + 1) // count for part in range(count)])


def together(results: Sequence[StepResult | None]) -> StepResult | None:
    """The sums over all parts of a batch. Losses and gradients are weighed by the samples, and added in a binary tree that
    leaves out the parts without rows; None if no part has rows."""
    sums = [None if result is None else result.as_sum() for result in results]
    first = next((one for one in sums if one is not None), None)
    if first is None:
        return None
    loss = tree([None if one is None else one.loss for one in sums])
    samples = tree([None if one is None else one.samples for one in sums])
    grads = {name: tree([None if one is None else one.grads[name] for one in sums]) for name in first.grads}
    return StepResult(loss, {name: np.asarray(grad) for name, grad in grads.items()}, samples, summed=True)


def tree(values: Sequence[Any]) -> Any:
    """The sum of those that are not None. The left half has the largest power of two below their number, so a block of
    neighbours whose number is a power of two has the same sum alone as within all."""
    if len(values) == 1:
        return values[0]
    half = 1 << (len(values) - 1).bit_length() - 1
    left, right = tree(values[:half]), tree(values[half:])
    return right if left is None else left if right is None else left + right


class Crew:
    """Calls a function on several values, on as many threads of its own as it is made for. A process that was forked has
    none of its parent's threads, so it makes others."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0  # whose threads the pool has

    def map(self, function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
        """The results in the order of the values. When all calls have ended, the first error is raised, if there is one."""
        if self._threads == 1 or len(values) < 2:
            return [function(value) for value in values]
        if self._pool is None or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="gradring step")
            self._process = os.getpid()
        futures: list[Future[Any]] = []
        try:
            futures.extend(self._pool.submit(function, value) for value in values)
            return [future.result() for future in futures]
        finally:  # also after an interrupt: no call may still read parameters that a later step changes
            for future in futures:
                future.cancel()
            wait(futures)
