"""Who may look at the parameters, and who may change them.

A lock of readers and one writer, after Courtois, Heymans and Parnas, "Concurrent Control with Readers and Writers", 1971.
A writer that runs for long pauses between two of its chunks, and then lets those go first who wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gradring.errors import GradringError

__all__ = ["Gate"]


class Gate:
    """Readers run at the same time; a writer runs alone.

    A thread that writes may write again, but reads only where it pauses: what it would see is half written.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers: dict[int, int] = {}  # thread: how often it has come in
        self._waiting = 0
        self._writer, self._depth = 0, 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._changed:
            if self._writer == me:
                raise GradringError(
                    "[Trainer] a step is running already, further up this thread's stack: a layer, or the function of a "
                    "loader, cannot use the trainer that runs it; a callback can"
                )
            self._waiting += 1
            try:
                while self._writer != 0:
                    self._changed.wait()
            finally:
                self._waiting -= 1
                self._changed.notify_all()
            self._readers[me] = self._readers.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._readers[me] -= 1
                if not self._readers[me]:
                    del self._readers[me]
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        me = threading.get_ident()
        self._enter(me)
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within ``writing``: others may come in meanwhile, and whoever waits comes in before the writer goes on."""
        with self._changed:
            me, depth = self._writer, self._depth
            self._writer, self._depth = 0, 0
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                # Those that wait now; a stream of new ones does not keep the writer away for long.
                self._changed.wait_for(lambda: self._waiting == 0, 0.2)
            self._enter(me, depth)

    def _enter(self, me: int, depth: int = 1) -> None:
        with self._changed:
            if self._writer == me:
                self._depth += 1
                return
            while self._writer != 0 or any(reader != me for reader in self._readers):
                self._changed.wait()
            self._writer, self._depth = me, depth

    def _leave(self) -> None:
        with self._changed:
            self._depth -= 1
            if self._depth == 0:
                self._writer = 0
                self._changed.notify_all()
