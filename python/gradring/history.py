"""What a training run measured, epoch by epoch."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from gradring.files import replacing

__all__ = ["History"]


class History:
    """Metrics by name, one value an epoch.

    ``metrics`` maps a name to a list of floats: ``epoch`` (counted from 1), ``loss``, ``accuracy``, ``val_loss``,
    ``val_accuracy``, ``lr`` (of the epoch's last update) and ``seconds``, as far as the run has them. A metric that
    an epoch lacks is NaN there, so all lists are equally long.

    >>> history = History()
    >>> history.append({"epoch": 1, "loss": 0.5})
    >>> history.append({"epoch": 2, "loss": 0.25})
    >>> history.metrics["loss"], len(history), history.last
    ([0.5, 0.25], 2, {'epoch': 2.0, 'loss': 0.25})
    """

    def __init__(self) -> None:
        self.metrics: dict[str, list[float]] = {}
        self._epochs = 0

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Sequence[float]]) -> History:
        """A history of these metrics; lists of unequal length raise ``ValueError``."""
        if not isinstance(metrics, Mapping):
            raise TypeError(f"[History] metrics must be a dict of lists, got {type(metrics).__name__}")
        history = cls()
        for values in zip(*metrics.values(), strict=True):
            history.append(dict(zip(metrics, values, strict=True)))
        return history

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch."""
        if row.keys() != self.metrics.keys():
            for name in row:
                self.metrics.setdefault(name, [math.nan] * self._epochs)
            row = {name: row.get(name, math.nan) for name in self.metrics}
        for name, values in self.metrics.items():
            values.append(float(row[name]))
        self._epochs += 1

    def __len__(self) -> int:
        return self._epochs

    @property
    def last(self) -> dict[str, float]:
        """The metrics of the last epoch; empty before the first one."""
        return {name: values[-1] for name, values in self.metrics.items()} if self._epochs else {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value:.4g}" for name, value in self.last.items())
        return f"History({self._epochs} epochs{'; last: ' if shown else ''}{shown})"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row an epoch, under the metrics' names; the file is replaced as a whole."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.metrics)
        writer.writerows(zip(*(map(cell, values) for values in self.metrics.values()), strict=True))
        with replacing(path) as file:
            file.write(text.getvalue().encode())

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw loss and accuracy over the epochs into a picture; its name's end chooses the format. Needs
        matplotlib."""
        panels = [name for name in ("loss", "accuracy") if name in self.metrics]
        if not panels:
            raise ValueError("[History.plot] there is no epoch to draw yet")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("[History.plot] needs matplotlib: pip install 'gradring[plot]'") from error
        figure = Figure(figsize=(5.0 * len(panels), 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for curve, label in ((name, "training"), (f"val_{name}", "validation")):
                if curve in self.metrics:
                    axes.plot(
                        self.metrics["epoch"], self.metrics[curve], label=label, marker="." if len(self) < 40 else ""
                    )
            axes.set(xlabel="epoch", ylabel=name)
            axes.grid(alpha=0.3)
            axes.legend()
        format = os.path.splitext(os.fspath(path))[1][1:] or "png"
        with replacing(path) as file:
            figure.savefig(file, format=format)


def cell(value: float) -> Any:
    """A number as it is written to a table: whole ones without a point."""
    return int(value) if value.is_integer() else repr(value)
