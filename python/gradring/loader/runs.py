"""The pipelines of one loader: one is kept from pass to pass, more live while several iterators do."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gradring import _core
from gradring.errors import LoaderError
from gradring.loader.processes import Workers
from gradring.sources import Opened

__all__ = ["Lent", "Runs", "Size"]

_LOG = logging.getLogger("gradring.loader")
_SPARES = 2  # csrc/loader/pipeline.cc
_AUTO_BYTES = 32 << 20  # of batches ahead
_AUTO_CELLS = 4
_MOST_AUTO_CELLS = 16
_MOST_AUTO_THREADS = 8
_BUDGET = 1 << 30
_KINDS = ("array", "tuple", "list", "dict")  # BatchForm::Kind


@dataclass
class Size:
    """How large a pipeline is: batches ahead, workers, how many of them begin, and bytes."""

    cells: int
    workers: int
    active: int
    tune: bool
    budget: int
    processes: bool


@dataclass
class Lent:
    """A pipeline, and the processes that work for it, if it has any."""

    run: Any
    workers: Workers | None
    user: Callable[[], Any]  # a weak reference to whoever reads it

    def close(self) -> None:
        self.run.close()
        if self.workers is not None:
            self.workers.close()
        self.run.join()


class Runs:
    """Makes pipelines and lends them. Must not know the loader, whose end is theirs."""

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
    ) -> None:
        self._opened, self._value, self._batch_size, self._restart = opened, value, batch_size, restart
        self._threads, self._prefetch, self._budget = threads, prefetch, budget
        self._wish = 1  # a factor on the automatic prefetch
        self._lent: list[Lent] = []
        self._others: list[Runs] = []
        self._closed = False
        self.slot_bytes = _slot_bytes(opened, batch_size)
        self.size = self._choose()

    def like(self, opened: Opened, casts: Any) -> Runs:
        """Others of the same size, whose batches are cast; they end with these."""
        other = Runs(
            opened,
            (*self._value[:2], casts),
            batch_size=self._batch_size,
            threads=self._threads,
            prefetch=self._prefetch,
            budget=self._budget,
            restart=self._restart,
        )
        self._others.append(other)
        return other

    def _choose(self) -> Size:
        opened = self._opened
        processes = opened.workers == "processes"
        given = self._threads if self._threads is not None else opened.num_workers
        if processes:
            workers = max(given or 1, 1)
        elif given is None:
            workers = min(_core.usable_cores(), _MOST_AUTO_THREADS)
        else:
            workers = given
        tune = given is None and not processes and (workers > 1 or not opened.python)
        cells = self._prefetch
        if cells is None:
            fitting = _AUTO_BYTES // max(self.slot_bytes, 1)
            cells = min(max(fitting, 2, workers), max(_AUTO_CELLS, workers)) * self._wish
        budget = self._budget
        if budget is None:
            budget = max(min(_core.memory_left() // 4, _BUDGET), (cells + _SPARES) * self.slot_bytes)
        most = budget // max(self.slot_bytes, 1) - (_SPARES if workers else 0)
        if most < 1:
            raise ValueError(
                f"[Loader] memory_budget is {budget} bytes, one batch takes {self.slot_bytes}: it must hold at least "
                f"{1 + _SPARES} batches ({(1 + _SPARES) * self.slot_bytes} bytes)"
            )
        if self._prefetch is not None and cells > most:
            raise ValueError(
                f"[Loader] prefetch={cells} takes {(cells + _SPARES) * self.slot_bytes} bytes: more than memory_budget "
                f"({budget})"
            )
        return Size(min(cells, most), workers, 1 if tune else workers, tune, budget, processes)

    def borrow(self) -> Lent:
        """A pipeline that nobody reads: the kept one, or a new one."""
        if self._closed:
            raise LoaderError("[loader] the loader was closed")
        for lent in list(self._lent):
            if lent.run.forked:
                self._lent.remove(lent)  # its workers live in another process
            elif lent.run.closed:
                self._lent.remove(lent)
                lent.close()
            elif lent.user() is None:
                if self._prefetch is None and self._smoother(lent):
                    self._lent.remove(lent)
                    lent.close()
                    continue
                return lent
        lent = self._make()
        self._lent = [other for other in self._lent if other.user() is not None]
        self._lent.append(lent)
        return lent

    def _smoother(self, lent: Lent) -> bool:
        """Whether the last pass asks for more batches ahead: the consumer waited although the workers did too."""
        stats = lent.run.stats()
        total = stats["consumer_wait_seconds"] + stats["consumer_own_seconds"]
        work = stats["worker_busy_seconds"] + stats["worker_wait_seconds"]
        if stats["batches"] < 50 or total < 0.2 or not work or stats["active_workers"] == 0:
            return False
        waited = stats["consumer_wait_seconds"] - stats["consumer_fill_seconds"]
        uneven = waited > 0.05 * total and stats["worker_wait_seconds"] > 0.3 * work
        larger = self.size.cells * 2
        room = larger <= _MOST_AUTO_CELLS and (larger + _SPARES) * self.slot_bytes <= min(
            self.size.budget // 4, 4 * _AUTO_BYTES
        )
        if not (uneven and room):
            return False
        self._wish *= 2
        self.size = self._choose()
        self.size.active = min(stats["active_workers"], self.size.workers)  # what tuning has found goes on
        _LOG.info("prefetch is now %d: batches take uneven time", self.size.cells)
        return True

    def _make(self) -> Lent:
        opened, size = self._opened, self.size
        run = _core.LoaderRun(
            source=opened.native,
            kind=_KINDS.index(opened.kind),
            looks=[(field.name, field.dtype, field.shape) for field in opened.fields],
            batch_size=self._batch_size,
            cells=size.cells,
            workers=size.workers,
            active=size.active,
            processes=size.processes,
            tune=size.tune,
            # A stuck Python function is found by its consumer, which must not be stuck in it.
            help=self._threads is None and not opened.python,
            memory_budget=size.budget,
        )
        if not size.processes:
            return Lent(run, None, _nobody)
        value = self._value
        workers = Workers(
            run,
            lambda: value,
            workers=size.workers,
            batch_size=self._batch_size,
            cells=size.cells,
            restart=self._restart,
        )
        return Lent(run, workers, _nobody)

    def close(self) -> None:
        """Ends all of them."""
        self._closed = True
        lent, self._lent = self._lent, []
        for other in self._others:
            other.close()
        for one in lent:
            with suppress(Exception):  # the others must end too; also at interpreter exit
                one.close()


def watched_by(watcher: Any) -> Callable[[], Any]:
    """Dead once the iterator that holds the watcher is."""
    return weakref.ref(watcher)


def _nobody() -> None:
    return None


def _slot_bytes(opened: Opened, batch_size: int) -> int:
    rows = [8, *(field.row_bytes for field in opened.fields)]
    return sum((batch_size * row + 63) // 64 * 64 for row in rows)
