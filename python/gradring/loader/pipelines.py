"""The pipelines of one loader: one is kept from pass to pass, more live while several iterators do."""

from __future__ import annotations

import atexit
import logging
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gradring import _core
from gradring.errors import LoaderError
from gradring.loader.processes import Workers
from gradring.sources import Opened
from gradring.sources._opened import KINDS

__all__ = ["PipelineLease", "Pipelines", "Shutdown", "Size"]

_LOG = logging.getLogger("gradring.loader")
_SPARES = _core.spare_slots
_AUTO_BYTES = 32 << 20  # of batches ahead, to begin with
_AUTO_AHEAD = 4
_MOST_AUTO_BYTES = 4 * _AUTO_BYTES  # and that tuning may come to
_MOST_AUTO_AHEAD = 16
_MOST_AUTO_THREADS = 8
_BUDGET = 1 << 30
_MOST_SLOT_BYTES = 1 << 46  # as csrc/loader/slots.cc has it
_GRACE = 5.0  # seconds that the end of a loader waits for a worker thread that is still at a sample


@dataclass
class Size:
    """How large a pipeline is: batches ahead to begin with and at most, workers, how many of them begin, and bytes."""

    ahead: int
    cells: int
    workers: int
    active: int
    tune: bool
    budget: int
    processes: bool


@dataclass
class PipelineLease:
    """A pipeline, the worker processes that fill it, if it has any, and the right to read it, which one pass has at a
    time."""

    run: Any
    workers: Workers | None
    # The list holds a token while no pass reads the pipeline. A thread that takes the token out may start a pass: the list's
    # methods are atomic, so only one thread gets it. When the watcher of that pass dies, the list gets its next token.
    free: list[Any] = field(default_factory=list)
    user: Any = None

    @property
    def broken(self) -> bool:
        """Whether its worker processes serve no other pass, because one has died or is stuck."""
        return self.workers is not None and self.workers.broken

    def lend(self, watcher: Any) -> None:
        """To the pass that this watcher belongs to."""
        # No function of Python: what a signal handler raised in it (Ctrl-C) would be lost.
        self.user = weakref.ref(watcher, self.free.append)

    def take(self) -> bool:
        """Whether nobody reads it, and the caller may now."""
        try:
            self.free.pop()
        except IndexError:
            return False
        return True

    def close(self, seconds: float = _GRACE, *, signals: bool = False) -> None:
        """End it. A worker thread that is still at work after so many seconds ends when what it is at returns."""
        self.run.close()
        if self.workers is not None:
            self.workers.close()
        if not self.run.join(seconds, signals) and seconds > 0:
            _LOG.warning(
                "a worker thread did not end within %.1f s: it ends when the function that it is in returns", seconds
            )


class Shutdown:
    """Ends all pipelines of a loader. It knows neither the loader nor its source, so that both can be garbage together."""

    def __init__(self) -> None:
        self.closed = False
        self.lists: list[list[PipelineLease]] = []
        self._ending: list[PipelineLease] = []  # closed; at their last sample
        _LIVE[id(self)] = weakref.ref(self, partial(_LIVE.pop, id(self)))

    def check(self) -> None:
        """Raises if it has ended."""
        if self.closed:
            raise LoaderError("[loader] the loader was closed")

    def close(self, seconds: float = _GRACE, *, signals: bool = False) -> None:
        """End all pipelines."""
        self.closed = True
        leases = [one for ones in (*self.lists, self._ending) for one in ones]
        self._ending = list(leases)
        for ones in self.lists:
            ones.clear()
        deadline = time.monotonic() + seconds
        while leases:
            one = leases.pop()
            try:
                one.close(max(deadline - time.monotonic(), 0.0), signals=signals)
            except Exception:  # the others must end too; also at interpreter exit
                _LOG.debug("while a loader was closed", exc_info=True)
            except BaseException:  # Ctrl-C: the others end without being waited for
                for other in leases:
                    other.close(0.0)
                raise
        self._ending = [one for one in self._ending if not one.run.ended]


_LIVE: dict[int, weakref.ref[Shutdown]] = {}


@atexit.register
def _at_exit() -> None:
    """While the interpreter is whole: no thread of ours outlives it, except one that does not come back to us."""
    deadline = time.monotonic() + _GRACE
    for live in list(_LIVE.values()):
        if (shutdown := live()) is not None:
            shutdown.close(max(deadline - time.monotonic(), 0.0))
    while _core.loaders_left() and time.monotonic() < deadline:
        time.sleep(0.01)


class Pipelines:
    """Makes the pipelines of a loader, keeps them from pass to pass, and lends them."""

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
        shutdown: Shutdown,
    ) -> None:
        self._opened, self._value, self._batch_size, self._restart = opened, value, batch_size, restart
        self._threads, self._prefetch, self._budget = threads, prefetch, budget
        self._leases: list[PipelineLease] = []  # never another list: `shutdown` has it
        self._shutdown = shutdown
        shutdown.lists.append(self._leases)
        self.slot_bytes = _slot_bytes(opened, batch_size)
        self.size = self._choose()

    def like(self, opened: Opened, casts: Any) -> Pipelines:
        """Others of the same size, whose batches are cast; they end with these."""
        return Pipelines(
            opened,
            (*self._value[:2], casts),
            batch_size=self._batch_size,
            threads=self._threads,
            prefetch=self._prefetch,
            budget=self._budget,
            restart=self._restart,
            shutdown=self._shutdown,
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
        said = given if not processes else self._threads  # how many processes a source asks for is the most of them
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
            # Three quarters of the budget stay for batches that the consumer keeps.
            cells = max(min(budget // 4, _MOST_AUTO_BYTES) // self.slot_bytes - _SPARES, ahead)
            cells = min(cells, max(_MOST_AUTO_AHEAD, ahead))
        active = workers
        if tune:  # threads cost little to add; processes leave a core to the consumer
            active = min(workers, max(_core.usable_cores() - 1, 1)) if processes else 1
        return Size(ahead, cells, workers, active, tune, budget, processes)

    def borrow(self) -> PipelineLease:
        """A pipeline that nobody reads: one that is kept, or a new one. The caller lends it to a watcher."""
        self._shutdown.check()
        for lease in list(self._leases):
            if lease.run.forked:
                self._drop(lease)  # its workers live in another process
            elif lease.run.closed:
                self._drop(lease)
                lease.close()
            elif lease.take():
                if not lease.broken:
                    return lease
                self._drop(lease)  # the next pass gets workers that are whole
                lease.close()
        lease = self._make()
        self._leases.append(lease)
        if self._shutdown.closed:  # by another thread, which may not have seen this pipeline
            self._drop(lease)
            lease.close()
            self._shutdown.check()
        return lease

    def _drop(self, lease: PipelineLease) -> None:
        with suppress(ValueError):  # another thread was faster
            self._leases.remove(lease)

    def _make(self) -> PipelineLease:
        opened, size = self._opened, self.size
        run = _core.LoaderRun(
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
            # A stuck Python function is found by its consumer, which must not be stuck in it.
            help=self._threads is None and not opened.python,
            memory_budget=size.budget,
        )
        if not size.processes:
            return PipelineLease(run, None)
        value = self._value
        workers = Workers(
            run,
            lambda: value,
            workers=size.workers,
            batch_size=self._batch_size,
            cells=size.cells,
            restart=self._restart,
        )
        return PipelineLease(run, workers)


def _slot_bytes(opened: Opened, batch_size: int) -> int:
    rows = [8, *(field.row_bytes for field in opened.fields)]
    return sum((batch_size * row + 63) // 64 * 64 for row in rows)
