"""One pass over a loader. A native reader calls its methods only when the reader cannot continue, so they may be
slow."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from gradring import _core, activity
from gradring.errors import LoaderError
from gradring.launch.notes import RemoteTraceback
from gradring.loader.pipelines import PipelineLease
from gradring.loader.processes import load_note

__all__ = ["Pass"]

_SLICE = 0.05  # seconds between two looks at signals and deadlines
_START_SECONDS = 60.0  # how long a worker process may import and unpickle, even if the timeout for a batch is shorter
# csrc/runtime/status.h
_INVALID, _OUT_OF_RANGE, _NO_MEMORY, _IO, _PYTHON = 1, 2, 3, 7, 9
_PYTHON_EXIT = 1009  # csrc/loader/source.h


class Pass:
    """One pass over a pipeline, from the first requested batch to the last.

    The native object that reads it, an iterator or a feed, holds it. While the pass lives, no other pass can use the
    pipeline, and the loader lives too. With ``stay`` the pass does not move the loader's position. ``finished`` is
    called at the end of the epoch.
    """

    def __init__(
        self,
        lease: PipelineLease,
        timeout: float,
        *,
        stay: bool,
        finished: Callable[[Pass, int], None],
        number: Callable[[int], int],
        called: Callable[[int], object],
        **order: Any,
    ) -> None:
        self.lease, self.stay, self._number, self._called = lease, stay, number, called
        self._timeout, self._finished, self._order = timeout, finished, order
        self._pid = os.getpid()
        self._restarted_at = 0.0
        self._starting = False
        lease.lend(self)

    def begin(self) -> None:
        """Begin the pass. Waits until all workers have left the last pass, which may have been left early."""
        start = partial(self.lease.pipeline.start, **self._order)
        began = time.monotonic()
        while True:
            try:
                start(seconds=_SLICE)
                return
            except TimeoutError:
                seconds = time.monotonic() - began
                if seconds > self._timeout:
                    pipeline = self.lease.pipeline
                    stripes = range(len(pipeline.stats()["workers"]))
                    at_work = [stripe for stripe in stripes if pipeline.worker_at(stripe)[0] >= 0]
                    self._stuck(seconds, at_work[0] if at_work else 0)
                    began = time.monotonic()

    def iterate(self) -> Any:
        """An iterator over the batches."""
        return self.lease.pipeline.iterate(self)

    def feed(self) -> Any:
        """The batches as an engine reads them: a ``_core.Feed``."""
        return _core.LoaderFeed(self.lease.pipeline, self)

    # Methods that the native readers call

    def waited(self, seconds: float, held: int) -> None:
        """The consumer has waited for ``seconds``: for a batch, or (held >= 0) until one that it holds comes back."""
        if held >= 0:
            if seconds > self._timeout:
                raise LoaderError(_held(self.lease.pipeline.stats(), held, seconds))
            return
        self._restarted_at = min(self._restarted_at, seconds)  # a restart may belong to an earlier wait
        allowed = self._timeout
        if self.lease.workers is not None:
            restarted, starting = self.lease.workers.check(), self.lease.workers.starting()
            if restarted or (self._starting and not starting):
                self._restarted_at = seconds  # the time limit for a batch starts again
            self._starting = starting
            if starting:
                allowed = max(allowed, _START_SECONDS)
        activity.waits_for_data(allowed - (seconds - self._restarted_at) + _SLICE)
        if seconds - self._restarted_at > allowed:
            self._stuck(seconds - self._restarted_at, max(self.lease.pipeline.waited_stripe(), 0))
            self._restarted_at = seconds

    def failed(self, stripe: int, batch: int, sample: int, code: int, message: str) -> None:
        """A worker failed at the next batch."""
        pipeline = self.lease.pipeline
        called, sample = (self._called(sample), self._number(sample)) if sample >= 0 else ("", sample)
        where = f"sample {called} (batch {batch} of this pass)" if sample >= 0 else f"batch {batch} of this pass"
        if code in (_PYTHON, _PYTHON_EXIT):
            error: BaseException | None
            threads = self.lease.workers is None
            error = pipeline.take_error(batch) if threads else load_note(pipeline.note(stripe))
            if isinstance(error, (StopIteration, StopAsyncIteration)):
                # Raised unchanged, it would end the consumer's loop as if all batches were read.
                cause = error
                error = LoaderError(f"[loader] the source raised {type(cause).__name__}, while reading {where}")
                error.__cause__ = cause
            if error is not None:
                try:
                    raise _marked(error, sample, where)
                finally:
                    del error  # breaks a cycle with the traceback, which holds this loader's memory
        text = f"[loader] {where}: {message.removeprefix('[loader] ')}"
        if code in (_INVALID, _OUT_OF_RANGE):
            raise _marked(ValueError(text), sample, None)
        if code == _IO:
            raise _marked(OSError(text), sample, None)
        if code == _NO_MEMORY:
            raise MemoryError(text)
        raise _marked(LoaderError(text), sample, None)

    def closed(self) -> None:
        """The pipeline was closed, or belongs to another process."""
        if os.getpid() != self._pid:
            raise LoaderError(
                "[loader] this iterator was made before fork, in another process, whose workers fill its batches; "
                "iterate the loader anew here"
            )
        raise LoaderError("[loader] the loader was closed while it was being read")

    def finished(self) -> None:
        """Called when the epoch is over."""
        self._finished(self, -1)

    def left(self, position: int) -> None:
        """Called when a pass ends early, before the batch at this position in the epoch's order."""
        self._finished(self, position)

    def _stuck(self, seconds: float, stripe: int) -> None:
        if self.lease.workers is not None:
            self.lease.workers.stuck(stripe, seconds)
            return
        stacks = []
        for worker in range(len(self.lease.pipeline.stats()["workers"])):
            batch, since, _, thread = self.lease.pipeline.worker_at(worker)
            frame = sys._current_frames().get(thread)
            if batch >= 0:
                stack = "".join(traceback.format_stack(frame)) if frame else "  (in native code)\n"
                stacks.append(f"thread {worker} has been at batch {batch} for {since:.1f} s:\n{stack}")
        raise LoaderError(f"[loader] no batch came within {seconds:.1f} s (timeout). " + "".join(stacks).rstrip())


def _held(stats: dict[str, Any], held: int, seconds: float) -> str:
    return (
        f"[loader] {held} batches are held, all {stats['slots']} slots of {stats['slot_bytes']} bytes are in use, and "
        f"none was given back within {seconds:.1f} s (timeout): drop batches (or copy what you keep), or raise memory_budget"
    )


def _marked(error: BaseException, sample: int, where: str | None) -> BaseException:
    """The error, with the sample's number added: as an attribute and, if Python has notes, as a note."""
    if sample >= 0:
        with contextlib.suppress(AttributeError):  # an exception with slots has no place for it
            error.sample_index = sample  # type: ignore[attr-defined]
    if where and hasattr(error, "add_note"):
        error.add_note(f"[loader] while reading {where}")
    if where and isinstance(error.__cause__, RemoteTraceback):
        error.__cause__.where = where
    return error
