"""A CSV file that gets a row per epoch."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from gradring.arguments import flag
from gradring.callbacks.base import Callback, Run
from gradring.callbacks.log_file import LogFile
from gradring.files import as_path
from gradring.history import cell

__all__ = ["Csv"]


class Csv(Callback):
    """Write one row of metrics after each epoch to ``path``, where it can be read during the run.

    The columns are those of the first epoch. With ``append=True`` an existing file with the same columns is continued;
    otherwise the file is replaced, and a resumed run begins it with the rows of the epochs that it resumes. A full disk does
    not end the run: the file keeps its whole rows, the others are tried again after each epoch, and ``fit`` raises ``OSError``
    at its end if some are still left.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        self.path = as_path("Csv", path)
        self.append = flag("Csv", "append", append)
        self._file: LogFile | None = None
        self._columns: list[str] = []
        self._resumed = False

    def on_fit_start(self, run: Run) -> None:
        # Open the file at the start, so that a folder that is not writable raises before the training, and not after
        # it.
        old = os.path.getsize(self.path) if self.append and os.path.exists(self.path) else 0
        if old:
            with open(self.path, newline="") as file:
                self._columns = next(csv.reader(file), [])
        self._file = LogFile("Csv", self.path, "a" if self.append else "w")
        self._resumed = not self.append and len(run.history) > 0
        if self._resumed:
            known = run.history.metrics
            self._columns = list(dict.fromkeys([*known, *run.names]))
            self._add(self._columns)
            for epoch in range(len(run.history)):
                self._write({name: values[epoch] for name, values in known.items()})

    def on_epoch_end(self, run: Run) -> None:
        if not self._columns:
            self._columns = list(run.metrics)
            self._add(self._columns)
        if self._columns != list(run.metrics) and not self._resumed:
            raise ValueError(f"[Csv] {self.path} has columns {self._columns}, this epoch has {list(run.metrics)}")
        self._write(run.metrics)

    def _write(self, row: Mapping[str, float]) -> None:
        self._add(cell(float(row.get(name, math.nan))) for name in self._columns)

    def _add(self, cells: Iterable[Any]) -> None:
        assert self._file is not None
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._file.add(line.getvalue().encode())

    def on_fit_end(self, run: Run) -> None:
        file, self._file, self._columns = self._file, None, []
        if file is not None:
            file.close("history.to_csv(path) writes all rows to another place")
