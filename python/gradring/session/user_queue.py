"""The steps of a user's own that a CUDA device has not reported yet, and what each of them would undo."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

__all__ = ["Entry", "Queue"]


@dataclass(eq=False)
class Entry:
    """A batch whose loss and gradients are on the device, or an update, which has no samples."""

    number: int
    before: dict[str, Any]
    """The session's counts before it."""
    samples: float = 0.0
    loss: float | None = None
    """The mean loss; None until the device has reported it."""
    first: bool = False
    """Whether the batch is the first one of its update."""
    after: Entry | None = None
    """The update that followed the batch."""
    done: bool = False
    error: Exception | None = None

    def outcome(self) -> Exception | None:
        """The error of the batch, or of the update that followed it."""
        return self.error or (None if self.after is None else self.after.error)

    @property
    def known(self) -> bool:
        """Whether the batch and its update are done, or have failed."""
        return self.outcome() is not None or (self.done and (self.after is None or self.after.done))


class Queue:
    """Entries in their order, and the report that is on its way."""

    MOST = 64  # after so many entries, a report is queued, even if its time has not come

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.reported = -1
        """The last entry of the report that is on its way; -1: there is none."""
        self.told = time.perf_counter()
        """When the last report was queued."""
        self.held: Exception | None = None
        """The error of a step that has failed, and that nothing has raised."""

    def take_held(self) -> Exception | None:
        error, self.held = self.held, None
        return error
