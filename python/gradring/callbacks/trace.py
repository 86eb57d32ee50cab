"""A trace of what every thread did when."""

from __future__ import annotations

import os
from typing import Any

from gradring.arguments import whole
from gradring.callbacks.base import Callback, Run
from gradring.files import as_path, require_place

__all__ = ["Trace"]

_MOST = 2**31


class Trace(Callback):
    """Record what every thread does during the run and write it to ``path`` at its end, as JSON for ui.perfetto.dev or
    chrome://tracing.

    Each thread of the step has a row with its instructions, by op and layer, its barriers and its waits; each thread of the
    loader has a row with the batches that it fills, and the thread that called ``fit`` also shows its waits for batches,
    validation and callbacks. A CUDA device has a row with its own times of each instruction; such steps are launched one
    instruction after the other, and not as graphs. The first ``events`` spans of each row are kept (32 bytes each), and
    ``dropped`` in the file counts the rest. One trace is recorded at a time, for the whole process; a second one raises
    ``RuntimeError``. Worker processes are not in it.

    While no trace is recorded, a step executes no instruction for it, because tracing uses another loop.
    """

    def __init__(self, path: str | os.PathLike[str], *, events: int = 1 << 20) -> None:
        self.path = os.path.abspath(as_path("Trace", path))
        self.events = whole("Trace", "events", events, 1, _MOST)
        self._session: Any = None
        self._on = False

    def on_fit_start(self, run: Run) -> None:
        from gradring import _core

        require_place("Trace", self.path)
        if _core.trace_is_on():
            raise RuntimeError("[Trace] a trace is being recorded already: there is one at a time in a process")
        self._session = getattr(run.trainer, "_session", None)
        _core.trace_start(self.events)
        self._on = True
        if self._session is not None:
            self._session.trace(True)

    def on_fit_end(self, run: Run) -> None:
        from gradring import _core

        if not self._on:
            return
        self._on = False
        _core.trace_stop()
        session, self._session = self._session, None
        if session is not None:
            session.trace(False)
        _core.trace_write(self.path)
