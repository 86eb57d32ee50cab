"""A run of ``Trainer.fit``: its epochs, callbacks and validation, and how its time was spent."""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from gradring import _core, activity, signals
from gradring.arguments import choice, frames_inside, plain
from gradring.callbacks.base import Callback, Row, Run, require_arguments
from gradring.callbacks.checkpoint import Checkpoint
from gradring.callbacks.csv import Csv
from gradring.callbacks.progress import Progress
from gradring.callbacks.states import give, named_states
from gradring.callbacks.tensorboard import TensorBoard
from gradring.callbacks.trace import Trace
from gradring.gate import Gate
from gradring.loader import Loader
from gradring.session.data import length_of
from gradring.session.purposes import Purpose
from gradring.session.whole_epochs import SECONDS, WholeEpochs
from gradring.timings import Timings
from gradring.training_state import TrainingState

__all__ = ["EVALUATE", "WRITERS", "Clock", "FitRun", "listeners_of", "require_sizes"]

_LOG = logging.getLogger("gradring.trainer")
WRITERS = Progress, Csv, TensorBoard, Trace  # with several ranks, only rank 0 has these
EVALUATE = 1024  # samples per batch; large, because no backward pass needs them


class Clock:
    """Seconds of all runs: of their epochs, of validation, and of native work, as far as a run has ended."""

    def __init__(self) -> None:
        self.epochs = self.validation = self.native = 0.0
        self._began: float | None = None  # the session's native seconds when the current run began

    def begin(self, worked: float) -> None:
        """Note the start of a run; the session has worked for ``worked`` seconds before it."""
        self._began = worked

    def end(self, worked: float) -> None:
        """Note the end of the run."""
        self.native, self._began = self._native(worked), None

    def timings(self, session: dict[str, float]) -> Timings:
        """The timings: the session's seconds by phase, and those of validation and Python."""
        python = self.epochs - self.validation - self._native(sum(session.values()))
        return Timings({**session, "validation": self.validation, "python": max(python, 0.0)})

    def _native(self, worked: float) -> float:
        return self.native if self._began is None else self.native + worked - self._began


class FitRun:
    """One call of ``Trainer.fit``. ``state`` and ``gate`` are the trainer's."""

    def __init__(self, state: TrainingState, gate: Gate, clock: Clock, listeners: list[Callback]) -> None:
        self._state, self._session, self._gate, self._clock = state, state.session, gate, clock
        self._listeners = listeners
        self._begun = False  # whether an epoch has begun
        self._uncounted: WholeEpochs | None = None  # epochs of a native call that the history does not have yet
        self._took = math.inf  # seconds of the shortest epoch of this run
        self.saves = False  # whether a signal to any rank ends the run with a saved state
        self._run: Run
        self._source: Any = None
        self._check: Any = None

    def run(
        self,
        trainer: Any,
        source: Any,
        check: Any,
        epochs: int,
        *,
        limit: int | None,
        resumed: str | os.PathLike[str] | None,
    ) -> None:
        """Train on ``source`` and validate with ``check``; ``epochs`` is the total if the run was resumed."""
        state, session, listeners = self._state, self._session, self._listeners
        with state.told():
            self._prepare(trainer, source, check, epochs, limit, resumed)
        run = self._run
        state.callbacks = tuple(listeners)
        try:
            session.listen(self._heard)
            for listener in listeners:
                listener.on_fit_start(run)
            if resumed is not None:
                give(state.callback_states, listeners, os.fspath(resumed))
            if session.peers is not None:
                session.peers.begin_fit(run.last_epoch, limit or 0, check is not None)
            self._clock.begin(sum(session.timings().values()))
            while state.epoch < run.last_epoch and not run.stop:
                if (most := self._whole_epochs()) > 1:
                    self._epochs(most)
                else:
                    self._epoch()
            run.ended = "complete"
        except BaseException as error:
            run.ended = type(error).__name__
            self._settle()  # once more, because the exception may have come from a signal during the first time
            state.leave(error, begun=self._begun)
            saving = [one for one in listeners if isinstance(one, Checkpoint) and one.monitor is None]
            try:
                if isinstance(error, signals.Ended) or (self.saves and getattr(error, "interrupted", False)):
                    _tell(error, _each(saving, lambda listener: listener.save(run)))
            finally:  # a second signal may interrupt the save
                self._end(error)
            raise
        else:
            self._end(None)

    def _prepare(
        self,
        trainer: Any,
        source: Any,
        check: Any,
        epochs: int,
        limit: int | None,
        resumed: str | os.PathLike[str] | None,
    ) -> None:
        state, session = self._state, self._session
        session.set_limit(limit)
        names = session.metric_names()
        batches = length_of(source)
        batches = limit if batches is None else batches
        self._source, self._check = source, check
        self._run = Run(
            trainer,
            state.history,
            first_epoch=state.epoch if resumed is None else 0,
            last_epoch=epochs if resumed is not None else state.epoch + epochs,
            batches=batches if batches is None or limit is None else min(batches, limit),
            epoch=state.epoch,
            batch=state.place[0],
            source=source,
            writing=self._gate.writing,
            names=("epoch", *names, *(f"val_{n}" for n in names if check is not None), "lr", "seconds"),
        )
        session.rates.require(self._run.names)

    def _end(self, error: BaseException | None) -> None:
        """Tell every callback that the run is over, even if others of them raise; ``error`` is what ended it."""
        run, state, listeners = self._run, self._state, self._listeners
        self._session.listen(None)
        self._clock.end(sum(self._session.timings().values()))
        try:
            failed = _each(listeners, lambda listener: listener.on_fit_end(run))
        finally:
            state.callbacks = ()
        try:
            state.callback_states = named_states(listeners)
        except Exception as why:
            failed.append(why)
        if error is not None:
            _tell(error, failed)
        elif failed:
            error = failed.pop(0)
            _tell(error, failed)
            try:
                raise error
            finally:
                del error  # or its traceback would keep the frames alive, and what they hold

    def _heard(self) -> bool:
        """Whether a report calls a callback, or lets another thread in."""
        return bool(self._listeners) or self._gate.awaited

    def _report(self, batches: int, metrics: dict[str, float]) -> None:
        run = self._run
        run.batch, run.metrics = batches, Row(metrics)
        if not self._heard():
            return
        began = time.perf_counter_ns()
        with self._gate.paused(), activity.doing("in a callback"):
            for listener in self._listeners:
                listener.on_report(run)
        _traced("callbacks", began)

    def _whole_epochs(self) -> int:
        """How many epochs the next native call may train on; at most 1 if they must come one by one."""
        state, session = self._state, self._session
        if self._took > SECONDS / 2 or self._check is not None or state.place[0] or self._heard():
            return 1
        if not session.trains_whole_epochs(self._source) or _core.trace_is_on():
            return 1
        return int(min(self._run.last_epoch - state.epoch, SECONDS / self._took))

    def _epochs(self, most: int) -> None:
        """Train on up to ``most`` whole epochs in one native call. An epoch that it does not complete stays begun."""
        state, session = self._state, self._session
        began = time.perf_counter()
        session.begin(0)
        epochs = self._uncounted = WholeEpochs(state.epoch, most, session.begun())
        state.running = True
        try:
            with self._gate.writing():
                session.train_epochs(self._source, epochs)
        finally:
            with signals.held():
                self._settle()
        if not epochs.done:
            self._took = math.inf  # the next one comes alone
        self._clock.epochs += time.perf_counter() - began

    def _settle(self) -> None:
        """Bring epochs and history up to what was trained. A second call continues where the first was interrupted."""
        if self._uncounted is not None:
            self._count(self._uncounted)
            self._uncounted = None
        self._state.settle()

    def _count(self, epochs: WholeEpochs) -> None:
        """Add the complete epochs to the history."""
        run, state, session = self._run, self._state, self._session
        rate = session.rates.first(max(session.step_count - 1, 0))
        session.begin_at(epochs.begun + epochs.steps)
        for number, (metrics, seconds) in enumerate(epochs.rows(session.metrics_of)):
            run.metrics = Row({"epoch": float(epochs.first + number + 1), **metrics, "lr": rate, "seconds": seconds})
            run.epoch = epochs.first + number
            if state.epoch == run.epoch:
                state.complete(run.metrics)
            self._took = min(self._took, seconds)
        run.batch = session.batches() or run.batches or 0

    def _epoch(self) -> None:
        run, state, session = self._run, self._state, self._session
        began = time.perf_counter()
        run.epoch, run.batch, run.metrics = state.epoch, state.place[0], {}
        start, measured = state.place
        session.begin(start, measured)
        self._begun = True
        state.running = True
        try:
            with self._gate.writing():
                metrics = session.train(self._source, state.epoch, start, self._report)
        finally:
            state.settle()
        done = session.batches()
        if session.limit is not None and done < session.limit and length_of(self._source) is None:
            warnings.warn(
                f"[Trainer.fit] data ended after {done} of the steps_per_epoch={session.limit} batches of epoch "
                f"{state.epoch + 1}: give an iterable of at least as many, or leave steps_per_epoch out",
                stacklevel=frames_inside(),
            )
        if self._check is not None:
            validating, began_ns = time.perf_counter(), time.perf_counter_ns()
            with self._gate.writing():
                found = session.evaluate(self._check, EVALUATE)
            metrics |= {f"val_{name}": value for name, value in found.items()}
            self._clock.validation += time.perf_counter() - validating
            _traced("validation", began_ns)
        if run.batches is not None:
            run.batch = run.batches
        row = {
            "epoch": float(state.epoch + 1),
            **metrics,
            "lr": session.rates.first(max(session.step_count - 1, 0)),
            "seconds": time.perf_counter() - began,
        }
        run.metrics = Row(row)
        if not start:
            self._took = min(self._took, row["seconds"])
        with signals.held():  # A signal must not leave an epoch that some callbacks have seen, and others have not.
            if session.rates.observe(run.metrics):
                session.rates_changed()
            state.complete(run.metrics)
            if self._listeners:
                began_ns = time.perf_counter_ns()
                with activity.doing("in a callback"):
                    # Checkpoints come last, so that they save the other callbacks' states after this epoch.
                    for listener in self._listeners:
                        listener.on_epoch_end(run)
                _traced("callbacks", began_ns)
            self._clock.epochs += time.perf_counter() - began
        if session.peers is not None:  # all ranks go on, or none does
            wish = session.peers.who(Purpose.EPOCH, bool(run.stop))
            run.stop = run.stop or ("" if wish is None else f"rank {wish} has ended the run")


def require_sizes(data: Any, source: Any, batch_size: Any, limit: int | None) -> None:
    """``ValueError`` for a ``batch_size`` beside batches that are there already in ``data``, of which ``source`` was made, and
    for more ``steps_per_epoch`` than there are batches: each epoch would be shorter than asked for."""
    batched = isinstance(data, Loader) or not isinstance(source, Loader)
    if batched and batch_size is not None and batch_size != getattr(data, "batch_size", None):
        raise ValueError(
            f"[Trainer.fit] batch_size={batch_size!r} is for arrays, and data has batches already ({type(data).__name__}): "
            "leave batch_size out, or give it to the loader"
        )
    length = length_of(source)
    if limit is not None and length is not None and limit > length:
        raise ValueError(
            f"[Trainer.fit] steps_per_epoch is {limit}, and data has {length} batches: an epoch reads no batch twice, so leave "
            "steps_per_epoch out and give more epochs, or give smaller batches"
        )


def _traced(name: str, began: int) -> None:
    """Add a span to the trace, if one is being recorded."""
    if _core.trace_is_on():
        _core.trace_record(name, began, time.perf_counter_ns())


def _style(verbose: Any) -> Any:
    """The style of the progress report; None for no report. The numbers mean the same as in Keras."""
    verbose = plain(verbose)
    verbose = int(verbose) if isinstance(verbose, bool) else verbose
    style = choice("Trainer.fit", "verbose", verbose, ("auto", "bar", "lines", 0, 1, 2), "or True or False")
    return style if isinstance(style, str) else (None, "auto", "lines")[style]


def _require_files_of_their_own(listeners: Iterable[Callback]) -> None:
    """Raise ``ValueError`` if two of the library's callbacks write the same file, because one would be lost."""
    writers: dict[str, Callback] = {}
    for listener in listeners:
        path = getattr(listener, "path", None)
        if not isinstance(listener, (Checkpoint, Csv, Trace)) or not isinstance(path, str):
            continue
        first = writers.setdefault(os.path.realpath(path), listener)
        if first is not listener:
            raise ValueError(
                f"[Trainer.fit] a {type(first).__name__} and a {type(listener).__name__} among callbacks both write {path!r}: "
                "give each a file of its own"
            )


def _each(listeners: Iterable[Any], call: Callable[[Any], object]) -> list[Exception]:
    """Call ``call`` with each listener, and return the exceptions. Ctrl-C is raised after all were called."""
    failed: list[Exception] = []
    ended: BaseException | None = None
    for listener in listeners:
        try:
            call(listener)
        except Exception as error:
            failed.append(error)
        except BaseException as error:
            ended = ended or error
    try:
        if ended is not None:
            raise ended
    finally:
        del ended
    return failed


def _tell(error: BaseException, failed: list[Exception]) -> None:
    """Report further exceptions: as notes of the first one, where Python has notes, and in the log. Empties the
    list, which would keep the tracebacks alive, and with them the frames and what those hold."""
    for other in failed:
        _LOG.error("at the end of fit, a callback raised %s: %s", type(other).__name__, other, exc_info=other)
        if hasattr(error, "add_note"):
            error.add_note(f"[Trainer.fit] at the end, a callback raised {type(other).__name__}: {other}")
    failed.clear()


def listeners_of(callbacks: Any, verbose: Any) -> list[Callback]:
    """Check the callbacks, put a progress report before them, and move those that save to the end."""
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(f"[Trainer.fit] callbacks must be a list of gr.callbacks, got {type(callbacks).__name__}")
    listeners = list(callbacks)
    for listener in listeners:
        if not isinstance(listener, Callback):
            hint = f": did you forget the brackets of {listener.__name__}()?" if isinstance(listener, type) else ""
            got = "a class" if isinstance(listener, type) else type(listener).__name__
            raise TypeError(f"[Trainer.fit] callbacks must be of gr.callbacks, got {got}{hint}")
        require_arguments(listener)
    _require_files_of_their_own(listeners)
    style = _style(verbose)
    if style is not None and not any(isinstance(listener, Progress) for listener in listeners):
        listeners.insert(0, Progress(style=style))
    return sorted(listeners, key=lambda listener: isinstance(listener, Checkpoint))
