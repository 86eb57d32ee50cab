"""Signals that end a run of ``fit`` after its state was saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

__all__ = ["Ended", "ending", "held", "require_main_thread"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal ended the run after a whole step; ``number`` is the signal's number."""

    number: int = signal.SIGINT


class _Handler:
    """Handles signals during a run: the first one raises ``Ended``, immediately or, within ``held``, after the
    block."""

    def __init__(self) -> None:
        self.told = False
        self.held = 0
        self.waiting: Ended | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.waiting is not None:
            self.release()  # a second signal does not wait
        if self.told:
            return  # the run is already being ended
        self.told = True
        self.waiting = Ended(f"{signal.Signals(number).name} ended the run after a whole step")
        self.waiting.number = number
        if not self.held:
            self.release()

    def release(self) -> None:
        """Raise the waiting exception, if there is one."""
        error, self.waiting = self.waiting, None
        if error is not None:
            raise error


_handlers: list[_Handler] = []  # the handlers of runs in the main thread, the innermost last


def require_main_thread(where: str) -> None:
    """``ValueError`` in a thread in which no signal could end a run, because Python handles signals in its main thread."""
    thread = threading.current_thread()
    if thread is not threading.main_thread():
        raise ValueError(
            f"[{where}] on_signal='save' is for Python's main thread, which alone sees signals, and this is the thread "
            f"{thread.name!r}: call fit in the main thread, or leave on_signal out and give a Checkpoint"
        )


@contextmanager
def ending(wanted: bool) -> Iterator[None]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP raise ``Ended`` in the main thread, each at most once.

    Handlers belong to the main thread: elsewhere, and where a signal is ignored (nohup), nothing changes.
    """
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    _handlers.append(handler)
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, known in before.items():
        if known is not signal.SIG_IGN and known is not None:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, known in before.items():
            if known is not None:
                signal.signal(number, known)
        _handlers.remove(handler)


def held() -> AbstractContextManager[None]:
    """A first signal during the block ends the run after the block, and a second one ends it immediately."""
    if not _handlers or threading.current_thread() is not threading.main_thread():
        return _NOTHING
    return _held(_handlers[-1])


_NOTHING = nullcontext()


@contextmanager
def _held(handler: _Handler) -> Iterator[None]:
    handler.held += 1
    try:
        yield
    finally:
        handler.held -= 1
        if not handler.held:
            handler.release()
