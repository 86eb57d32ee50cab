"""The pipelines of one loader: one is kept from pass to pass, and several live while several passes do."""

from __future__ import annotations

import atexit
import logging
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from gradring import _core
from gradring.errors import LoaderError

if TYPE_CHECKING:
    from gradring.loader.processes import Workers

__all__ = ["PipelineLease", "Pipelines"]

_LOG = logging.getLogger("gradring.loader")
_GRACE = 5.0  # seconds that closing a loader waits for a worker thread that is still busy with a sample


@dataclass(eq=False)
class PipelineLease:
    """A native pipeline, the worker processes that fill it, if it has any, and the right to read it, which one pass has
    at a time."""

    dtypes: tuple[str, ...]  # the dtypes of its batches
    pipeline: Any  # _core.LoaderPipeline
    workers: Workers | None
    # The list holds a token while no pass reads the pipeline. A thread that takes the token out may begin a pass: the list's
    # methods are atomic, so only one thread gets it. When that pass dies, its weak reference puts the next token in.
    _free: list[Any] = field(default_factory=list)
    _reader: Any = None

    @property
    def broken(self) -> bool:
        """Whether its worker processes can serve no other pass, because one has died or is stuck."""
        return self.workers is not None and self.workers.broken

    def lend(self, reader: Any) -> None:
        """Lend the pipeline to the pass ``reader`` as long as that lives."""
        # The callback must not be a Python function, because an exception of a signal handler (Ctrl-C) in it would be
        # lost.
        self._reader = weakref.ref(reader, self._free.append)

    def take(self) -> bool:
        """Take the token. Returns whether no pass reads the pipeline; if so, only the caller may lend it to one."""
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def close(self, seconds: float = _GRACE, *, signals: bool = False) -> None:
        """End it. A worker thread that is still busy after ``seconds`` ends after its current sample."""
        self.pipeline.close()
        if self.workers is not None:
            self.workers.close()
        if not self.pipeline.join(seconds, signals) and seconds > 0:
            _LOG.warning(
                "a worker thread did not end within %.1f s: it ends when the function that it is in returns", seconds
            )


class Pipelines:
    """All pipelines of a loader: lends each to one pass at a time, keeps them from pass to pass, and ends them together.

    It refers neither to the loader nor to its source, so that Python can free both.
    """

    def __init__(self) -> None:
        self._closed = False
        self._leases: list[PipelineLease] = []
        self._ending: list[PipelineLease] = []  # closed, but a thread of each was still busy with a sample
        _LIVE[id(self)] = weakref.ref(self, partial(_LIVE.pop, id(self)))

    def check(self) -> None:
        """Raises ``LoaderError`` if the loader was closed."""
        if self._closed:
            raise LoaderError("[loader] the loader was closed")

    def borrow(self, dtypes: tuple[str, ...], make: Callable[[], PipelineLease]) -> PipelineLease:
        """A pipeline with these dtypes that no pass reads: one that was kept, or a new one. The caller lends it to a pass."""
        self.check()
        for lease in list(self._leases):
            if lease.pipeline.forked:
                self._drop(lease)  # its workers belong to the parent process
            elif lease.pipeline.closed:
                self._drop(lease)
                lease.close()
            elif lease.dtypes == dtypes and lease.take():
                if not lease.broken:
                    return lease
                self._drop(lease)  # the next pass needs workers that are alive
                lease.close()
        lease = make()
        self._leases.append(lease)
        if self._closed:  # another thread closed the loader, and may not have seen this pipeline
            self._drop(lease)
            lease.close()
            self.check()
        return lease

    def close(self, seconds: float = _GRACE, *, signals: bool = False) -> None:
        """End all pipelines. After this, the loader can start no other."""
        self._closed = True
        leases = [*self._leases, *self._ending]
        self._ending = list(leases)
        self._leases.clear()
        deadline = time.monotonic() + seconds
        while leases:
            lease = leases.pop()
            try:
                lease.close(max(deadline - time.monotonic(), 0.0), signals=signals)
            except Exception:  # the others must end too; also at interpreter exit
                _LOG.debug("while a loader was closed", exc_info=True)
            except BaseException:  # Ctrl-C: end the others without waiting for them
                for other in leases:
                    other.close(0.0)
                raise
        self._ending = [lease for lease in self._ending if not lease.pipeline.ended]

    def _drop(self, lease: PipelineLease) -> None:
        with suppress(ValueError):  # another thread has removed it
            self._leases.remove(lease)


_LIVE: dict[int, weakref.ref[Pipelines]] = {}


@atexit.register
def _at_exit() -> None:
    """Called before the interpreter ends, so that no thread of ours outlives it, except one that is stuck in a user's
    function."""
    deadline = time.monotonic() + _GRACE
    for live in list(_LIVE.values()):
        if (pipelines := live()) is not None:
            pipelines.close(max(deadline - time.monotonic(), 0.0))
    while _core.loaders_left() and time.monotonic() < deadline:
        time.sleep(0.01)
