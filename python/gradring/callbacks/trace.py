"""A picture of what every thread did when."""

from __future__ import annotations

import os

from gradring.callbacks.base import Callback, Run

__all__ = ["Trace"]


class Trace(Callback):
    """Record what every thread does during the run and write it to ``path`` at its end, as JSON for chrome://tracing or
    ui.perfetto.dev. One trace is recorded at a time, for the whole process."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._on = False

    def on_fit_start(self, run: Run) -> None:
        from gradring import _core

        folder = os.path.dirname(self.path)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(f"[Trace] {folder} is not a folder that can be written")
        _core.trace_start()
        self._on = True

    def on_fit_end(self, run: Run) -> None:
        from gradring import _core

        if self._on:
            _core.trace_stop()
            _core.trace_write(self.path)
            self._on = False
