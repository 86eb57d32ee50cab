"""Who may look at the parameters, and who may change them.

A lock of readers and one writer, after Courtois, Heymans and Parnas, "Concurrent Control with Readers and Writers", 1971.
A writer that runs for long pauses between two of its chunks, and then lets those go first who wait.

A signal's handler may raise at any moment, also while a thread enters or leaves. So each thread inside is known by a token
that lives in its own frame: when the frame is gone, so is the claim, however it ended.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from gradring.errors import GradringError

__all__ = ["Gate"]

_POLL = 0.0005  # seconds between two looks of a thread that waits
_PATIENCE = 0.2  # seconds that a pause lasts at most for those that wait


class _Token:
    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Gate:
    """Readers run at the same time; a writer runs alone.

    A thread that writes may write again, but reads only where it pauses: what it would see is half written.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # guards the following, and is never held for long
        self._readers: weakref.WeakSet[_Token] = weakref.WeakSet()
        self._waiting: weakref.WeakSet[_Token] = weakref.WeakSet()
        self._writer: weakref.ref[_Token] | None = None
        self._returning: weakref.ref[_Token] | None = None  # the writer whose pause is over: it is the next to come in

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Waits for a writer; ``GradringError`` if that is this very thread."""
        token = _Token()
        while not self._read(token):
            time.sleep(_POLL)
        try:
            yield
        finally:
            with self._lock:
                self._readers.discard(token)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Waits for readers and other writers; within itself it does nothing."""
        token = _Token()
        while not self._write(token):
            with self._lock:
                self._waiting.add(token)
            time.sleep(_POLL)
        try:
            yield
        finally:
            with self._lock:
                if self._inside() is token:
                    self._writer = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within ``writing``: other threads may come in, and those that wait come in before the writer goes on."""
        with self._lock:
            token, self._writer = self._inside(), None
        assert token is not None
        try:
            yield
        finally:
            began = time.monotonic()
            while self._waiting and time.monotonic() - began < _PATIENCE:
                time.sleep(_POLL)
            # From here on no other thread comes in, so that a stream of readers does not keep the writer out for ever.
            self._returning = mine = weakref.ref(token)
            try:
                while not self._write(token):
                    time.sleep(_POLL)
            finally:  # also if a signal ends the wait
                if self._returning is mine:
                    self._returning = None

    def _inside(self) -> _Token | None:
        return None if self._writer is None else self._writer()

    def _read(self, token: _Token) -> bool:
        with self._lock:
            writer = self._inside()
            # A thread that reads already may read again, or it and the returning writer would wait for each other.
            if writer is None and (
                self._is_next(token) or any(reader.thread == token.thread for reader in self._readers)
            ):
                self._readers.add(token)
                self._waiting.discard(token)
                return True
            if writer is not None and writer.thread == token.thread:
                raise GradringError(
                    "[Trainer] a step is running already, further up this thread's stack: a layer, or the function of a "
                    "loader, cannot use the trainer that runs it; a callback can"
                )
            self._waiting.add(token)
            return False

    def _write(self, token: _Token) -> bool:
        with self._lock:
            writer = self._inside()
            if writer is not None:
                return writer.thread == token.thread
            if not self._is_next(token) or any(reader.thread != token.thread for reader in self._readers):
                return False
            self._writer, self._returning = weakref.ref(token), None
            self._waiting.discard(token)
            return True

    def _is_next(self, token: _Token) -> bool:
        """Whether no writer of another thread returns from a pause."""
        returning = None if self._returning is None else self._returning()
        return returning is None or returning.thread == token.thread
