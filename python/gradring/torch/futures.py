"""PyTorch's futures of gradring's operations: a thread waits for one after another, without the GIL."""

from __future__ import annotations

import queue
import threading
import weakref
from typing import Any

import torch

from gradring.comm import Work

__all__ = ["Completer"]

_LAST_SECONDS = 5.0  # how long to wait for an operation when the interpreter ends


class Completer:
    """Completes futures in the order of their operations, which is the order in which they end."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Work, Any, Any] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, _stop, self._queue, self._threads)

    def future(self, work: Work, result: Any) -> Any:
        """A future whose result is `result`, which is complete when the work has ended."""
        if not self._threads:
            thread = threading.Thread(target=_serve, args=(self._queue,), name="gradring-futures", daemon=True)
            thread.start()
            self._threads.append(thread)
        future = torch.futures.Future()
        self._queue.put((work, future, result))
        return future


def _stop(waiting: queue.SimpleQueue[Any], threads: list[threading.Thread]) -> None:
    """End the thread and wait for it: one that is inside PyTorch when the interpreter ends aborts the process."""
    waiting.put(None)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(_LAST_SECONDS)


def _serve(waiting: queue.SimpleQueue[Any]) -> None:
    while (item := waiting.get()) is not None:
        work, future, result = item
        try:
            work.wait()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        del item, work, future, result  # no operation is held while the next one is waited for
