"""What this process is doing, for ranks that wait for it. Code that waits or works long reports it here, and communicators
register to be told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

__all__ = ["Listener", "doing", "listen", "waits_for_data"]


class Listener(Protocol):
    """Whom an activity is told: its name ('' for none), for how many seconds others shall have patience, and whether it lasts
    only until the next operation of the communicator."""

    def publish_activity(self, name: str, patience: float, passing: bool) -> None: ...


_listeners: WeakSet[Listener] = WeakSet()
_under_way: list[str] = []  # activities within each other, the innermost last


def listen(listener: Listener) -> None:
    """Tell `listener` of every activity from now on, as long as the listener lives."""
    _listeners.add(listener)


def waits_for_data(patience: float) -> None:
    """A consumer waits for a batch, at most for that many seconds more; its next collective ends the activity."""
    for listener in tuple(_listeners):
        listener.publish_activity("waiting for data", patience, True)


@contextmanager
def doing(name: str) -> Iterator[None]:
    """The block is 'saving', 'in a callback' or 'computing'; the others' deadline begins anew when it ends."""
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
