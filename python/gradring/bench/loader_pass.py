"""A pass over batches as a unit of work: every byte touched, the first batch timed, CPU and memory of all its processes."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_LEAST_SECONDS = 0.15


def touch(array: Array) -> int:
    """Reads every byte."""
    flat = array.reshape(-1).view(np.uint8)
    whole = flat.size // 8 * 8
    return int(np.bitwise_or.reduce(flat[:whole].view(np.uint64)))


def touch_batch(batch: Any) -> None:
    """Reads every byte of a batch of arrays or of tensors that know ``numpy()``."""
    for part in batch if isinstance(batch, (tuple, list)) else (batch,):
        touch(part if isinstance(part, np.ndarray) else part.numpy())


class Pass:
    """`batches` batches of what `make` returns.

    With `fresh`, each pass calls `make`; with `endless`, one iterator continues from pass to pass. `before` runs
    before each pass, untimed. `first_seconds` is the time from making the first one to having touched its first batch.
    """

    def __init__(
        self,
        make: Callable[[], Iterable[Any]],
        batches: int,
        *,
        fresh: bool = False,
        endless: bool = False,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._make, self._batches, self._fresh, self._before = make, batches, fresh, before
        self._warm()
        begin = time.perf_counter()
        self._loader: Any = make()
        iterator = iter(self._loader)
        touch_batch(next(iterator))
        self._iterator: Iterator[Any] | None = iterator if endless else None
        self.facts = {"first_seconds": time.perf_counter() - begin}
        if fresh:
            self._end()

    def _warm(self) -> None:
        if self._before is not None:
            self._before()

    def _end(self) -> None:
        if hasattr(self._loader, "close"):
            self._loader.close()
        self._loader = None

    def __call__(self) -> None:
        if self._fresh:
            self._loader = self._make()
        for number, batch in enumerate(self._iterator or self._loader):
            touch_batch(batch)
            if number + 1 == self._batches:
                break
        if self._fresh:
            del batch
            self._end()

    def measure(self) -> dict[str, float]:
        """Seconds of a pass, including the first batch. Short passes are timed after one untimed pass."""
        if not self._fresh:
            begin = time.perf_counter()
            self()
            calls = max(1, round(_LEAST_SECONDS / max(time.perf_counter() - begin, 1e-6)))
        else:
            calls = 1
        self._warm()
        cpu, begin = tree_cpu_seconds(), time.perf_counter()
        for _ in range(calls):
            self()
        seconds = time.perf_counter() - begin
        return {
            "seconds": seconds / calls,
            "cpu_seconds": (tree_cpu_seconds() - cpu) / calls,
            "memory_bytes": tree_memory(),
        }


def family() -> list[int]:
    """This process and all below it."""
    found, todo = [], [os.getpid()]
    while todo:
        pid = todo.pop()
        found.append(pid)
        with suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError):
                    todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def tree_cpu_seconds() -> float:
    """CPU seconds of this process and all below it, those that have ended included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for pid in family()[1:]:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0]) * 1e-9
    return total


def tree_memory() -> float:
    """Bytes in memory, pages that processes share counted once (PSS)."""
    total = 0
    for pid in family():
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) << 10
    return float(total)
