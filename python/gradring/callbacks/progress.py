"""A progress bar, or one line per epoch where none can be drawn."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Any, Literal, TextIO

from gradring.arguments import choice
from gradring.callbacks.base import Callback, Run
from gradring.loader import Loader

__all__ = ["Progress"]

_FAILED = (OSError, ValueError)  # the pipe is broken, the disk is full, the file was closed

# A thread holds this lock while it writes, and a fork waits for it. A process that is forked while another thread
# writes inherits the lock of the file's buffer, which no thread there can release: it would hang at its own first line.
_writing = threading.RLock()
_held: list[bool] = []


def _before_fork() -> None:
    _held.append(_writing.acquire(timeout=5))  # a pipe that no process reads must not block forks for ever


def _after_fork() -> None:
    if _held.pop():
        _writing.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class Progress(Callback):
    """Show the progress of the run on standard error or in another text file.

    ``style="bar"`` draws a bar over all batches of the run, with the epoch and its metrics; in a notebook it is a
    widget. ``"lines"`` writes one line per epoch. ``"auto"`` draws a bar where there is a terminal or a notebook, and
    else writes lines. If the file cannot be written, the output stops and the run continues. If batches came from a
    ``Loader``, a last line says what it chose, and who waited for whom. ``Trainer.fit`` adds a progress report by
    itself, unless ``verbose=False``.
    """

    def __init__(self, file: TextIO | None = None, *, style: Literal["auto", "bar", "lines"] = "auto") -> None:
        self._file, self._style = file, choice("Progress", "style", style, ("auto", "bar", "lines"))
        self._bar: Any = None
        self._lines = False
        self._validation: dict[str, float] = {}

    def on_fit_start(self, run: Run) -> None:
        self._validation, self._bar, self._lines = {}, None, False
        file = sys.stderr if self._file is None else self._file
        if file is None:  # a process without standard error
            return
        notebook = self._file is None and _in_notebook()
        self._lines = self._style == "lines" or (self._style == "auto" and not notebook and not _is_terminal(file))
        if self._lines:
            return
        if notebook:
            from tqdm.auto import tqdm  # type: ignore[import-untyped]
        else:
            from tqdm import tqdm  # type: ignore[import-untyped]

        class Bar(tqdm):  # type: ignore[misc]
            monitor_interval = 0  # tqdm needs no monitor thread, because the run reports often enough

            def __init__(self, **options: Any) -> None:
                try:
                    super().__init__(**options)
                except _FAILED:
                    _give_up(self)
                    raise

        total = None if run.batches is None else run.batches * (run.last_epoch - run.first_epoch)
        options: dict[str, Any] = {} if notebook else {"file": file, "bar_format": _FORMAT}
        try:
            with _writing:
                self._bar = Bar(
                    total=total, initial=self._done(run), unit="batch", dynamic_ncols=True, leave=True, **options
                )
        except _FAILED:
            return
        self._show(run)

    def on_report(self, run: Run) -> None:
        self._show(run)

    def on_epoch_end(self, run: Run) -> None:
        self._validation = {name: value for name, value in run.metrics.items() if name.startswith("val_")}
        self._show(run)
        if self._lines:
            shown = [f"{name} {value:.4f}" for name, value in run.metrics.items() if name not in _UNSHOWN]
            self._write(
                f"epoch {_epoch(run)}: {', '.join(shown)}, {run.metrics['seconds']:.1f} s"
                + (f" (ends: {run.stop})" if run.stop else "")
            )

    def on_fit_end(self, run: Run) -> None:
        advice = ""
        if isinstance(run.source, Loader) and (stats := run.source.stats()).batches > 0:
            advice = f"loader: {stats.chosen}. {stats.advice}"
        if self._bar is not None:
            bar, self._bar = self._bar, None
            try:
                with _writing:
                    bar.refresh()
                    if advice:
                        bar.write(advice, file=bar.fp)
                    bar.close()
            except _FAILED:
                _give_up(bar)
        elif self._lines and advice:
            self._write(advice)

    def _write(self, line: str) -> None:
        file = sys.stderr if self._file is None else self._file
        try:
            with _writing:
                print(line, file=file, flush=True)
        except _FAILED:
            self._lines = False

    def _show(self, run: Run) -> None:
        bar = self._bar
        if bar is None:
            return
        shown = {name: value for name, value in run.metrics.items() if name not in _UNSHOWN and "val_" not in name}
        shown |= self._validation
        try:
            said = f"epoch {_epoch(run)}"
            bar.set_description(said, refresh=False)
            bar.set_postfix_str(_fitting(shown, _columns(bar) - len(said) - len(": 100%, ||")), refresh=False)
            with _writing:
                bar.update(self._done(run) - bar.n)
        except _FAILED:
            self._bar = None
            _give_up(bar)

    @staticmethod
    def _done(run: Run) -> int:
        return run.batch + (run.epoch - run.first_epoch) * (run.batches or 0)


_UNSHOWN = ("epoch", "lr", "seconds")
# The metrics come before the bar, which fills the rest of the line.
_FORMAT = "{desc}{percentage:3.0f}%{postfix} |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"


def _epoch(run: Run) -> str:
    return f"{min(run.epoch + 1, run.last_epoch) - run.first_epoch}/{run.last_epoch - run.first_epoch}"


def _columns(bar: Any) -> int:
    """The width of the line that the bar is drawn on."""
    measure = getattr(bar, "dynamic_ncols", None)
    width = measure(bar.fp)[0] if callable(measure) else None
    return int(width or 1000)


def _fitting(metrics: dict[str, float], room: int) -> str:
    """The metrics that fit into the line, with as many digits as fit. Metrics of validation come first, in their own
    order."""
    important = sorted(metrics, key=lambda name: ("loss" not in name, "val_" not in name))
    while True:
        kept = [name for name in metrics if name in important]
        for digits in (4, 3, 2):
            text = " ".join(f"{_short(name)}={metrics[name]:.{digits}f}" for name in kept)
            if len(text) <= room or (digits == 2 and len(kept) <= 1):
                return text
        # Drop a training metric first whose validation metric is shown.
        spare = [name for name in important if f"val_{name}" in important] or important
        important.remove(spare[-1])


def _short(name: str) -> str:
    return name.replace("accuracy", "acc")


def _give_up(bar: Any) -> None:
    """Stop drawing, and print nothing when the bar is garbage-collected. A later bar must not keep a line free for this one."""
    bar.disable = True
    with suppress(Exception):  # it may be incomplete
        type(bar)._decr_instances(bar)


def _is_terminal(file: TextIO) -> bool:
    try:
        return file.isatty()
    except _FAILED:
        return False


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None and hasattr(shell, "get_ipython") else None
    return type(found).__name__ == "ZMQInteractiveShell"
