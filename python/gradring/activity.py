"""Records what this process is doing, for ranks that wait for it. Code that waits or works long reports it here, and
communicators register as listeners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

__all__ = ["Listener", "doing", "listen", "waits_for_data"]


class Listener(Protocol):
    """An object that is notified of activities: the name ('' for none), for how many seconds other ranks should wait, and
    whether the activity ends with the communicator's next operation."""

    def publish_activity(self, name: str, patience: float, passing: bool) -> None: ...


_listeners: WeakSet[Listener] = WeakSet()
_under_way: list[str] = []  # nested activities, the innermost last


def listen(listener: Listener) -> None:
    """Notify `listener` of every activity from now on, as long as the listener lives."""
    _listeners.add(listener)


def waits_for_data(patience: float) -> None:
    """Report that a consumer waits for a batch, at most ``patience`` seconds longer; its next collective ends the
    activity."""
    for listener in tuple(_listeners):
        listener.publish_activity("waiting for data", patience, True)


@contextmanager
def doing(name: str) -> Iterator[None]:
    """Report that the block is ``name``: 'saving', 'in a callback' or 'computing'. When it ends, the other ranks'
    deadline starts again."""
    _under_way.append(name)
    _publish(name)
    try:
        yield
    finally:
        _under_way.pop()
        _publish(_under_way[-1] if _under_way else "")


def _publish(name: str) -> None:
    for listener in tuple(_listeners):
        listener.publish_activity(name, 0.0, False)
