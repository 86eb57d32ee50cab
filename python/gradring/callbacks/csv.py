"""A table that grows with the run."""

from __future__ import annotations

import csv
import os
from typing import IO, Any

from gradring.arguments import flag
from gradring.callbacks.base import Callback, Run
from gradring.history import cell

__all__ = ["Csv"]


class Csv(Callback):
    """Write one row of metrics after each epoch to ``path``, where it can be read while the run goes on.

    The columns are those of the first epoch. With ``append=True`` an existing file with the same columns is continued.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        self.path = os.fspath(path)
        self.append = flag("Csv", "append", append)
        self._file: IO[str] | None = None
        self._writer: Any = None
        self._columns: list[str] = []

    def on_fit_start(self, run: Run) -> None:
        # Opened at the start, so that a folder that cannot be written is known before the training and not after it.
        old = os.path.getsize(self.path) if self.append and os.path.exists(self.path) else 0
        if old:
            with open(self.path, newline="") as file:
                self._columns = next(csv.reader(file), [])
        self._file = open(self.path, "a" if self.append else "w", newline="")  # noqa: SIM115 (closed in on_fit_end)
        self._writer = csv.writer(self._file, lineterminator="\n")

    def on_epoch_end(self, run: Run) -> None:
        assert self._file is not None
        if not self._columns:
            self._columns = list(run.metrics)
            self._writer.writerow(self._columns)
        if self._columns != list(run.metrics):
            raise ValueError(f"[Csv] {self.path} has columns {self._columns}, this epoch has {list(run.metrics)}")
        self._writer.writerow(cell(float(run.metrics[name])) for name in self._columns)
        self._file.flush()

    def on_fit_end(self, run: Run) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._columns = None, []
