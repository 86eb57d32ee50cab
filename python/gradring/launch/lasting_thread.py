"""A thread that lasts as long as the process.

The system kills a worker process when the thread that started it ends (PR_SET_PDEATHSIG follows a thread, not its
process). So workers are started from a thread that does not end before the process: the main thread, or a thread that
exists only for this.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["call_where_threads_last"]

_T = TypeVar("_T")


class _LastingThread:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        threading.Thread(target=self._serve, name="gradring-spawn", daemon=True).start()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.put((function, future))
        return future

    def _serve(self) -> None:
        while True:
            function, future = self._calls.get()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            del function, future  # Otherwise they would live until the next call.


_lock = threading.Lock()
_lasting: _LastingThread | None = None


def call_where_threads_last(function: Callable[[], _T], undo: Callable[[_T], object]) -> _T:
    """``function()``, called in a thread that lasts as long as the process. If the wait for it is interrupted (by Ctrl-C),
    ``undo`` is called with what it returns."""
    global _lasting
    if threading.get_native_id() == os.getpid():
        return function()
    with _lock:
        if _lasting is None or _lasting.pid != os.getpid():  # A forked child has none of its parent's threads.
            _lasting = _LastingThread()
        future = _lasting.call(function)
    try:
        result: _T = future.result()
    except BaseException:
        future.add_done_callback(lambda done: undo(done.result()) if done.exception() is None else None)
        raise
    return result


def _forget_lock() -> None:
    """Make a new lock in a forked child, because the thread that held the old one does not exist there."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)
