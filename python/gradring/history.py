"""The metrics of a training run, epoch by epoch."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradring.files import replacing
from gradring.habits import explained
from gradring.tables import html

__all__ = ["History"]


class History:
    """Metrics by name, one value per epoch.

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
            values[self._epochs :] = [float(row[name])]  # in place of what an interrupted call has left there
        self._epochs += 1

    def __len__(self) -> int:
        return self._epochs

    def __getitem__(self, name: str) -> list[float]:
        """The values of a metric, one per epoch: ``history["loss"]`` is ``history.metrics["loss"]``."""
        if name not in self.metrics:
            raise KeyError(f"[History] there is no metric {name!r}, only {list(self.metrics)}")
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    @property
    def last(self) -> dict[str, float]:
        """The metrics of the last epoch; empty before the first one."""
        return {name: values[-1] for name, values in self.metrics.items()} if self._epochs else {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value:.4g}" for name, value in self.last.items())
        return f"History({self._epochs} epochs{'; last: ' if shown else ''}{shown})"

    @explained("History.to_csv")
    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row per epoch, under the metrics' names; the file is replaced as a whole."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.metrics)
        writer.writerows(zip(*(map(cell, values) for values in self.metrics.values()), strict=True))
        with replacing(path) as file:
            file.write(text.getvalue().encode())

    @explained("History.plot")
    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw every metric over the epochs, training and validation in one panel; returns the ``matplotlib`` figure, which
        a notebook shows. With ``path`` it is also written there; the name's end chooses the format. Needs matplotlib."""
        panels = list(
            dict.fromkeys(n.removeprefix("val_") for n in self.metrics if n not in ("epoch", "lr", "seconds"))
        )
        if not panels or not self._epochs:
            raise ValueError("[History.plot] there is no epoch to draw yet")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("[History.plot] needs matplotlib: pip install 'gradring[plot]'") from error
        columns = min(len(panels), 3)
        rows = -(-len(panels) // columns)
        # A figure that a notebook shows by itself: matplotlib's own does so only after pyplot has been set up.
        shown = type("Figure", (Figure,), {"_repr_png_": _png})
        figure = shown(figsize=(5.0 * columns, 3.6 * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        epochs = self.metrics.get("epoch", list(range(1, self._epochs + 1)))
        for axes, name in zip(places, panels, strict=False):
            for curve, label in ((name, "training"), (f"val_{name}", "validation")):
                if curve in self.metrics:
                    axes.plot(epochs, self.metrics[curve], label=label, marker="." if len(self) < 40 else "")
            axes.set(xlabel="epoch", ylabel=name)
            axes.grid(alpha=0.3)
            axes.legend()
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        if path is not None:
            format = os.path.splitext(os.fspath(path))[1][1:] or "png"
            with replacing(path) as file:
                figure.savefig(file, format=format)
        return figure

    def _repr_html_(self) -> str:
        rows = zip(*self.metrics.values(), strict=True)
        return html(list(self.metrics), [[_short(value) for value in row] for row in rows], left=())


def _png(figure: Any) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _short(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def cell(value: float) -> Any:
    """A number as a text for a table: whole numbers have no decimal point."""
    return int(value) if value.is_integer() else repr(value)
