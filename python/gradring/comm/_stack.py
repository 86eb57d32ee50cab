"""Shows the Python stack of a rank to other ranks that are about to find it stalled."""

from __future__ import annotations

import sys
import threading
import traceback

from gradring import _core

__all__ = ["tell_stacks"]

_MOST_BYTES = 1900


def tell_stacks(group: _core.Group) -> threading.Thread:
    """Start and return a thread that writes down the calling thread's stack whenever another rank asks, until the
    communicator is closed."""
    teller, caller = group.stack_teller(), threading.get_ident()

    def tell() -> None:
        while teller.await_question():
            teller.answer(_stack_of(caller))

    thread = threading.Thread(target=tell, name="gradring-stack", daemon=True)
    thread.start()
    return thread


def _stack_of(thread: int) -> str:
    """The innermost frames of a thread, as many as there is room for."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "  (the thread that joined has ended)"
    lines = traceback.format_stack(frame)
    while len(lines) > 1 and len("".join(lines).encode()) > _MOST_BYTES:
        del lines[0]
    return "".join(lines).rstrip()
