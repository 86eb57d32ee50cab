"""Signals that end a run of ``fit``, and leave what was learned on the disk."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Ended", "ending"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal ended the run after a whole step; ``number`` is the signal's."""

    number: int = signal.SIGINT


@contextmanager
def ending(wanted: bool) -> Iterator[None]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP raise ``Ended`` in the main thread, each at most once.

    Handlers belong to the main thread: elsewhere, and where a signal is ignored (nohup), nothing changes.
    """
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def end(number: int, _: FrameType | None) -> None:
        nonlocal told
        if told:
            return  # the run is already being ended
        told = True
        name = signal.Signals(number).name
        error = Ended(f"{name} ended the run after a whole step")
        error.number = number
        raise error

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN and handler is not None:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
