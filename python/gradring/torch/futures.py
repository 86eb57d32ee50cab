"""PyTorch's futures of gradring's operations: a thread waits for each in turn, without the GIL."""

from __future__ import annotations

import queue
import threading
import weakref
from typing import Any

import torch

from gradring.comm import Work

__all__ = ["Completer"]


class Completer:
    """Completes futures in the order of their operations, which is the order in which they end."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Work, Any, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        weakref.finalize(self, self._queue.put, None)

    def future(self, work: Work, result: Any) -> Any:
        """A future of `result`, which is there when the work is done."""
        if self._thread is None:
            self._thread = threading.Thread(target=_serve, args=(self._queue,), name="gradring-futures", daemon=True)
            self._thread.start()
        future = torch.futures.Future()
        self._queue.put((work, future, result))
        return future


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
