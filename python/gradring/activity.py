"""Records what this process is doing, for ranks that wait for it. Code that waits or works long reports it here, and
communicators register as listeners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Protocol
from weakref import ref

__all__ = ["Listener", "doing", "listen", "waits_for_data"]


class Listener(Protocol):
    """An object that is notified of activities: the name ('' for none), for how many seconds other ranks should wait, and
    whether the activity ends with the communicator's next operation."""

    def publish_activity(self, name: str, patience: float, passing: bool) -> None: ...


# A new tuple for each listener, so that another thread may still go through the old one.
_listeners: tuple[ref[Listener], ...] = ()
_listening = RLock()
_under_way: list[str] = []  # nested activities, the innermost last


def listen(listener: Listener) -> None:
    """Notify `listener` of the activity under way, and of every activity from now on, as long as the listener lives."""
    global _listeners
    with _listening:
        _listeners = (*(other for other in _listeners if other() is not None), ref(listener))
    if _under_way:
        listener.publish_activity(_under_way[-1], 0.0, False)


def _notify(name: str, patience: float, passing: bool) -> None:
    for reference in _listeners:
        listener = reference()
        if listener is not None:
            listener.publish_activity(name, patience, passing)


def waits_for_data(patience: float) -> None:
    """Report that a consumer waits for a batch, at most ``patience`` seconds longer; its next collective ends the
    activity."""
    _notify("waiting for data", patience, True)


@contextmanager
def doing(name: str) -> Iterator[None]:
    """Report that the block is ``name``: 'saving', 'in a callback' or 'computing'. When it ends, the other ranks'
    deadline starts again."""
    _under_way.append(name)
    _notify(name, 0.0, False)
    try:
        yield
    finally:
        _under_way.pop()
        _notify(_under_way[-1] if _under_way else "", 0.0, False)
