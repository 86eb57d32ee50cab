"""The lock between threads that read a model's parameters and the thread that changes them.

A lock of readers and one writer, after Courtois, Heymans and Parnas, "Concurrent Control with Readers and Writers", 1971.
A writer that runs for long pauses between two of its chunks, and first lets in the threads that wait.

A signal's handler may raise at any moment, also while a thread enters or leaves. So a claim represents each thread inside.
The claim is the context manager itself, and only the frame of the ``with`` statement holds it: when the frame ends, for
any reason, the claim ends too.

A reader takes no lock where no writer is near: it announces its claim, and is inside if it then sees no writer. A writer
announces itself first too, and then looks for readers, so one of the two sees the other (Dekker's idea; a set's methods are
atomic and in order under the GIL, without which this gate would not work). With a lock, threads that predict would soon
queue up behind one that lost the GIL while it held the lock, and each call would cost a change of threads.
"""

from __future__ import annotations

import threading
import time
import weakref

from gradring.errors import GradringError

__all__ = ["Gate"]

_POLL = 0.0005  # A waiting thread looks again after so many seconds.
_PATIENCE = 0.2  # A writer that pauses for waiting threads continues after so many seconds at the latest.


class _Claim:
    """The claim of a thread that is inside, or that waits to come in."""

    __slots__ = ("__weakref__", "gate", "thread")

    def __init__(self, gate: Gate) -> None:
        self.gate, self.thread = gate, threading.get_ident()


class _Reading(_Claim):
    __slots__ = ("ref",)

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate)
        self.ref = weakref.ref(self)

    def __enter__(self) -> None:
        gate = self.gate
        gate._readers.add(self.ref)
        # A writer sets _writer before it clears _arriving, so reading them in this order misses neither.
        if gate._arriving is None and gate._writer is None and gate._returning is None:
            return
        gate._readers.discard(self.ref)
        while not gate._read(self):
            time.sleep(_POLL)

    def __exit__(self, *_: object) -> None:
        self.gate._readers.discard(self.ref)


class _Writing(_Claim):
    __slots__ = ()

    def __enter__(self) -> None:
        gate = self.gate
        while not gate._write(self):
            with gate._lock:
                gate._waiting.add(self)
            time.sleep(_POLL)

    def __exit__(self, *_: object) -> None:
        gate = self.gate
        with gate._lock:
            if gate._inside() is self:
                gate._writer = None


class _Pause:
    __slots__ = ("_gate", "_writer")

    def __init__(self, gate: Gate) -> None:
        self._gate, self._writer = gate, gate._inside()
        assert self._writer is not None

    def __enter__(self) -> None:
        with self._gate._lock:
            self._gate._writer = None

    def __exit__(self, *_: object) -> None:
        gate, writer = self._gate, self._writer
        assert writer is not None
        if gate._waiting:
            began = time.monotonic()
            while gate._waiting and time.monotonic() - began < _PATIENCE:
                time.sleep(_POLL)
        # From here on no other thread comes in, because a stream of readers could keep the writer out for ever.
        gate._returning = mine = weakref.ref(writer)
        try:
            while not gate._write(writer):
                time.sleep(_POLL)
        finally:  # do this even if a signal ends the wait
            if gate._returning is mine:
                gate._returning = None


class Gate:
    """Readers run at the same time; a writer runs alone.

    A thread that writes may write again, but may read only in a pause, because elsewhere the parameters are half
    written.
    """

    def __init__(self) -> None:
        self._readers: set[weakref.ref[_Reading]] = set()
        self._lock = threading.RLock()  # guards what follows, and is never held for long
        self._waiting: weakref.WeakSet[_Claim] = weakref.WeakSet()
        self._arriving: weakref.ref[_Claim] | None = None  # a writer that looks for readers
        self._writer: weakref.ref[_Claim] | None = None
        self._returning: weakref.ref[_Claim] | None = None  # the writer whose pause is over, which comes in next

    def reading(self) -> _Reading:
        """Waits for a writer. Raises ``GradringError`` if this thread is the writer."""
        return _Reading(self)

    def writing(self) -> _Writing:
        """Waits for readers and other writers. If this thread is writing already, it does nothing."""
        return _Writing(self)

    def paused(self) -> _Pause:
        """Use it within ``writing``: other threads may come in, and those that wait come in before the writer
        continues."""
        return _Pause(self)

    @property
    def awaited(self) -> bool:
        """Whether a thread waits to come in."""
        return bool(self._waiting)

    def _inside(self) -> _Claim | None:
        return None if self._writer is None else self._writer()

    def _reader_threads(self) -> set[int]:
        threads = set()
        for ref in list(self._readers):
            reader = ref()
            if reader is None:  # a signal's handler ended it
                self._readers.discard(ref)
            else:
                threads.add(reader.thread)
        return threads

    def _read(self, claim: _Reading) -> bool:
        with self._lock:
            writer = self._inside()
            # A thread that reads already may read again, or it and the returning writer would wait for each other.
            if writer is None and (self._is_next(claim) or claim.thread in self._reader_threads()):
                self._writer = None  # a dead claim would keep readers from the short way
                self._readers.add(claim.ref)
                self._waiting.discard(claim)
                return True
            if writer is not None and writer.thread == claim.thread:
                raise GradringError(
                    "[Trainer] a step is running already, further up this thread's stack: a layer, or the function of a "
                    "loader, cannot use the trainer that runs it; a callback can"
                )
            self._waiting.add(claim)
            return False

    def _write(self, claim: _Claim) -> bool:
        with self._lock:
            writer = self._inside()
            if writer is not None:
                return writer.thread == claim.thread
            if not self._is_next(claim):
                return False
            self._arriving = mine = weakref.ref(claim)
            try:
                if self._readers and self._reader_threads() - {claim.thread}:
                    return False
                self._writer, self._returning = mine, None
            finally:
                self._arriving = None
            if self._waiting:
                self._waiting.discard(claim)
            return True

    def _is_next(self, claim: _Claim) -> bool:
        """Whether no other thread is a writer that returns from a pause, and so has precedence."""
        returning = None if self._returning is None else self._returning()
        return returning is None or returning.thread == claim.thread
