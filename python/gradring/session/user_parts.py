"""Steps of a user's own that are computed in parts, on several threads: how a batch is cut, and how results are added up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Crew", "StepResult", "parts_of_batch", "together"]

Array = NDArray[Any]


class StepResult(NamedTuple):
    """A loss that is the mean over ``samples`` samples, and its gradients."""

    loss: float
    grads: dict[str, Array]
    samples: float


def _rows(field: Any) -> int:
    shape = getattr(field, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else -1
    return len(field) if hasattr(field, "__len__") and not isinstance(field, (str, bytes, Mapping)) else -1


def parts_of_batch(batch: Any, count: int) -> list[Any]:
    """Cut a batch into ``count`` parts, or into one part for each row if it has fewer rows. Of n rows, part i has those from
    n i / count to n (i + 1) / count. A batch is an array, or a tuple, list or dict of arrays of as many rows.

    >>> parts_of_batch((np.arange(5), np.arange(5)), 2)
    [(array([0, 1]), array([0, 1])), (array([2, 3, 4]), array([2, 3, 4]))]
    """
    named = batch.items() if isinstance(batch, Mapping) else None
    several = isinstance(batch, (tuple, list)) and any(hasattr(field, "shape") for field in batch)
    fields = list(batch.values()) if named is not None else list(batch) if several else [batch]
    found = {_rows(field) for field in fields}
    if len(found) != 1 or min(found) < 1:
        raise TypeError(
            "[step] replicas and shards cut a batch along the first axis of its arrays, so it must be an array, or a tuple, "
            f"list or dict of arrays of as many rows; got {type(batch).__name__} with {sorted(found)} rows (-1: none)"
        )
    (rows,) = found
    places = [(rows * part // count, rows * (part + 1) // count) for part in range(count)]
    parts = []
    for begin, end in places:
        cut = [field[begin:end] for field in fields]
        if end > begin:
            parts.append(dict(zip(batch, cut, strict=True)) if named is not None else cut[0])
            if several:
                parts[-1] = tuple(cut) if isinstance(batch, tuple) else cut
    return parts


def together(results: Sequence[StepResult]) -> StepResult:
    """The result for the whole batch: losses and gradients are weighed by the samples, and added in a binary tree."""
    if len(results) == 1:
        return results[0]
    samples = _tree([result.samples for result in results])
    loss = _tree([result.loss * result.samples for result in results])
    grads = {}
    for name, grad in results[0].grads.items():
        kind = grad.dtype.type
        total = _tree([result.grads[name] * kind(result.samples) for result in results])
        grads[name] = np.asarray(total / kind(samples))
    return StepResult(loss / samples, grads, samples)


def _tree(values: Sequence[Any]) -> Any:
    """Their sum. The left half has the largest power of two below their number."""
    if len(values) == 1:
        return values[0]
    left = 1 << (len(values) - 1).bit_length() - 1
    return _tree(values[:left]) + _tree(values[left:])


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
