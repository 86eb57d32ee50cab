"""A progress bar."""

from __future__ import annotations

from typing import Any, TextIO

from gradring.callbacks.base import Callback, Run
from gradring.loader import Loader

__all__ = ["Progress"]


class Progress(Callback):
    """A bar over all batches of the run, with the epoch and its metrics, on standard error or another text file.

    Where the batches came from a ``Loader``, a last line says what it chose, and who waited for whom.
    ``Trainer.fit`` adds one by itself where standard error is a terminal.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._bar: Any = None
        self._validation: dict[str, float] = {}

    def on_fit_start(self, run: Run) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        class Bar(tqdm):  # type: ignore[misc]
            monitor_interval = 0  # no thread of its own: the run reports often enough

        total = None if run.batches is None else run.batches * (run.last_epoch - run.first_epoch)
        done = self._done(run)
        self._bar = Bar(total=total, initial=done, file=self._file, unit="batch", dynamic_ncols=True, leave=True)
        self._validation = {}
        self._show(run)

    def on_report(self, run: Run) -> None:
        self._show(run)

    def on_epoch_end(self, run: Run) -> None:
        self._validation = {name: value for name, value in run.metrics.items() if name.startswith("val_")}
        self._show(run)

    def on_fit_end(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.refresh()
            if isinstance(run.source, Loader) and (stats := run.source.stats()).batches > 0:
                self._bar.write(f"loader: {stats.chosen}. {stats.advice}", file=self._bar.fp)
            self._bar.close()
            self._bar = None

    def _show(self, run: Run) -> None:
        shown = {name: value for name, value in run.metrics.items() if name in ("loss", "accuracy")} | self._validation
        bar = self._bar
        bar.set_description(
            f"epoch {min(run.epoch + 1, run.last_epoch) - run.first_epoch}/{run.last_epoch - run.first_epoch}",
            refresh=False,
        )
        bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()}, refresh=False)
        bar.update(self._done(run) - bar.n)

    @staticmethod
    def _done(run: Run) -> int:
        return run.batch + (run.epoch - run.first_epoch) * (run.batches or 0)
