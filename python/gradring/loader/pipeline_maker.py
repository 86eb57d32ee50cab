"""Makes the pipelines of a loader: decides how large they are and which workers fill them."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

from gradring import _core
from gradring.arguments import frames_inside
from gradring.loader.pipelines import PipelineLease
from gradring.loader.processes import Workers
from gradring.sources import Opened
from gradring.sources._opened import KINDS

__all__ = ["PipelineMaker", "Size", "warn_if_pageable"]

_SPARES = _core.spare_slots
_AUTO_BYTES = 32 << 20  # bytes of batches ahead, at the beginning
_AUTO_AHEAD = 4
_MOST_AUTO_BYTES = 4 * _AUTO_BYTES  # the most bytes ahead that tuning may choose
_MOST_AUTO_AHEAD = 16
_MOST_AUTO_THREADS = 8
_BUDGET = 1 << 30
_MOST_SLOT_BYTES = 1 << 46  # the same limit as in csrc/loader/slots.cc


@dataclass
class Size:
    """The size of a pipeline."""

    ahead: int  # batches ahead at the beginning
    cells: int  # the most batches ahead
    workers: int
    active: int  # workers that are active at the beginning
    tune: bool
    budget: int  # bytes
    processes: bool


class PipelineMaker:
    """Makes pipelines whose batches have one set of dtypes: as the user gets them, or cast for training."""

    def __init__(
        self,
        opened: Opened,
        value: Any,
        *,
        batch_size: int,
        threads: int | None,
        prefetch: int | None,
        budget: int | None,
        restart: int,
        pinned: bool = False,
    ) -> None:
        self._pinned = pinned
        self._opened, self._value, self._batch_size, self._restart = opened, value, batch_size, restart
        self._threads, self._prefetch, self._budget = threads, prefetch, budget
        self.dtypes = tuple(str(field.dtype) for field in opened.fields)
        self.slot_bytes = _slot_bytes(opened, batch_size)
        # To ask the system for its free memory and cores takes as long as several epochs of a small data set in memory, which
        # need no pipeline. So choose only now what can raise an error.
        if prefetch is not None or budget is not None or self.slot_bytes > _MOST_SLOT_BYTES:
            self.size = self._choose()

    @functools.cached_property
    def size(self) -> Size:
        """The size of each pipeline."""
        return self._choose()

    def casting(self, opened: Opened, casts: Any) -> PipelineMaker:
        """A maker of pipelines of the same size, whose batches are cast."""
        return PipelineMaker(
            opened,
            (*self._value[:-1], casts),
            batch_size=self._batch_size,
            threads=self._threads,
            prefetch=self._prefetch,
            budget=self._budget,
            restart=self._restart,
            pinned=self._pinned,
        )

    def _choose(self) -> Size:
        if self.slot_bytes > _MOST_SLOT_BYTES:
            raise MemoryError(
                f"[Loader] a batch of {self.slot_bytes} bytes is beyond any memory: lower batch_size ({self._batch_size})"
            )
        opened = self._opened
        processes = opened.workers == "processes"
        given = self._threads if self._threads is not None else opened.num_workers
        if processes:
            workers = max(given or 1, 1)
        elif given is None:
            workers = min(_core.usable_cores(), _MOST_AUTO_THREADS)
        else:
            workers = given
        said = (
            given if not processes else self._threads
        )  # a source's num_workers is the most processes that the tuner may use
        tune = said is None and (workers > 1 or not opened.python)
        ahead = self._prefetch
        if ahead is None:
            ahead = min(max(_AUTO_BYTES // self.slot_bytes, 2, workers), max(_AUTO_AHEAD, workers))
        budget = self._budget
        if budget is None:
            budget = max(min(_core.memory_left() // 4, _BUDGET), (ahead + _SPARES) * self.slot_bytes)
        most = budget // self.slot_bytes - (_SPARES if workers else 0)
        if most < 1:
            raise ValueError(
                f"[Loader] memory_budget is {budget} bytes, one batch takes {self.slot_bytes}: it must hold at least "
                f"{1 + _SPARES} batches ({(1 + _SPARES) * self.slot_bytes} bytes)"
            )
        if self._prefetch is not None and ahead > most:
            raise ValueError(
                f"[Loader] prefetch={ahead} takes {(ahead + _SPARES) * self.slot_bytes} bytes: more than memory_budget "
                f"({budget})"
            )
        cells = ahead = min(ahead, most)
        if self._prefetch is None:
            # Batches that the consumer keeps may use the other three quarters of the budget.
            cells = max(min(budget // 4, _MOST_AUTO_BYTES) // self.slot_bytes - _SPARES, ahead)
            cells = min(cells, max(_MOST_AUTO_AHEAD, ahead))
        active = workers
        if tune:  # Begin with one thread, because adding one costs little. Processes leave a core to the consumer.
            active = min(workers, max(_core.usable_cores() - 1, 1)) if processes else 1
        return Size(ahead, cells, workers, active, tune, budget, processes)

    def make(self) -> PipelineLease:
        """A new pipeline. Its worker processes, if it has any, have been started."""
        opened, size = self._opened, self.size
        pipeline = _core.LoaderPipeline(
            source=opened.native,
            kind=KINDS.index(opened.kind),
            looks=[(field.name, field.dtype, field.shape) for field in opened.fields],
            batch_size=self._batch_size,
            cells=size.cells,
            ahead=size.ahead,
            workers=size.workers,
            active=size.active,
            processes=size.processes,
            tune=size.tune,
            split=not opened.python,
            # A consumer can notice that a Python function is stuck only if it does not run the function itself.
            help=self._threads is None and not opened.python,
            memory_budget=size.budget,
            pinned=self._pinned,
        )
        warn_if_pageable(pipeline)
        workers = None
        if size.processes:
            value = self._value
            workers = Workers(
                pipeline,
                lambda: value,
                workers=size.workers,
                batch_size=self._batch_size,
                cells=size.cells,
                restart=self._restart,
            )
        return PipelineLease(self.dtypes, pipeline, workers)


def warn_if_pageable(pipeline: Any) -> None:
    """Say once in a process that a device has refused to pin a pipeline's slots."""
    refusal = pipeline.pin_refusal
    if refusal is not None:
        _warn(refusal)


@functools.cache
def _warn(refusal: str) -> None:
    """Say once that copies to the device are slower."""
    warnings.warn(
        f"[Loader] batches are not in pinned memory, so their copies to the device are slower: {refusal}",
        RuntimeWarning,
        stacklevel=frames_inside(),
    )


def _slot_bytes(opened: Opened, batch_size: int) -> int:
    rows = [8, *(field.row_bytes for field in opened.fields)]
    return sum((batch_size * row + 63) // 64 * 64 for row in rows)
