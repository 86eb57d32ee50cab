"""Trainer: fit, step, evaluate, predict, save and load, over one session."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradring import checkpoint, signals
from gradring.arguments import choice, whole
from gradring.attributes import Settled
from gradring.callbacks.base import Callback, Run
from gradring.callbacks.checkpoint import Checkpoint
from gradring.callbacks.progress import Progress
from gradring.callbacks.states import give, joined, named_states, require_known, split
from gradring.errors import CheckpointCorrupt, CheckpointMismatch, GradringError
from gradring.gate import Gate
from gradring.history import History
from gradring.optim import AdamW, Optimizer
from gradring.options import Options, require_one_process
from gradring.prediction import joined_rows, prediction_inputs
from gradring.session import Session, UserSession
from gradring.session.base import BaseSession
from gradring.session.data import length_of
from gradring.session.user import UserFunction
from gradring.timings import Timings

if TYPE_CHECKING:
    from gradring.nn.layer import Layer
    from gradring.nn.params import Params

__all__ = ["Trainer"]

_STATE = "optimizer/"  # before the names of the optimizer's arrays in a checkpoint
_VERSION = "1"
_EVALUATE = 1024  # samples at a time; large, since nothing is kept for a backward pass


class Trainer(Settled):
    """Trains a model natively, or updates parameters with gradients of your own.

    Two forms::

        Trainer(model, loss="cross_entropy", optimizer=gr.optim.AdamW(1e-3))
        Trainer(step=fn, params={"w": w, "b": b}, optimizer=gr.optim.SGD(0.1))

    In the second, ``fn(params, batch)`` returns the loss, a dict of gradients with the names of ``params``, and
    optionally the number of samples; arrays may be of any framework whose CPU memory NumPy can view, and are updated
    in place.

    ``loss`` is ``"cross_entropy"`` (int labels), ``"mse"`` or ``"binary_cross_entropy"``. ``threads`` are those of
    one step. ``accumulate`` adds the gradients of that many batches before an update. ``clip_norm`` scales gradients
    whose global norm is larger. ``nonfinite="raise"`` ends with ``NonFinite`` at a loss that is NaN or infinite, and
    leaves the parameters as they were before that step. ``seed`` decides initial parameters, dropout and, for plain
    arrays, the order; None means 0. A model that has parameters already keeps them: with a seed, that is then one of
    dropout and order alone after ``model.init`` or a load, and an error after a training, which ``reset(seed)`` undoes.
    Another optimizer may be assigned to ``trainer.optimizer`` at any time; the next step uses it.

    Any number of threads may call ``predict`` at the same time; beside a ``fit`` in another thread, ``predict``,
    ``evaluate``, ``save`` and ``state_dict`` run between two of its chunks, so within about 0.2 s, on the parameters of a
    whole step. Whatever trains serves one thread at a time; another one that calls it meanwhile gets a
    ``GradringError``. Any number of trainers may work at once.

    >>> import gradring as gr
    >>> train, test = gr.datasets.digits()
    >>> model = gr.nn.Sequential(gr.nn.Linear(64, 32), gr.nn.ReLU(), gr.nn.Linear(32, 10))
    >>> trainer = gr.Trainer(model, optimizer=gr.optim.AdamW(1e-2))
    >>> history = trainer.fit(train, epochs=5, validate=test)
    >>> history.last["val_accuracy"] > 0.9
    True
    """

    # loss = trainer.step(x, y): one update from one batch, without running statistics. An attribute, the session's own
    # native function, because a Python method in between would cost as much as a small step's arithmetic.
    step: Callable[..., float]

    def __init__(
        self,
        model: Layer | None = None,
        loss: str = "cross_entropy",
        optimizer: Optimizer | None = None,
        *,
        metrics: Sequence[str] = ("accuracy",),
        device: str = "cpu",
        dtype: DTypeLike = "float32",
        replicas: int | Literal["auto"] = "auto",
        threads: int | Literal["auto"] = "auto",
        parallel: str = "allreduce",
        shards: int | None = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
        nonfinite: str = "raise",
        seed: int | None = None,
        comm: None = None,
        step: UserFunction | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        if (model is None) == (step is None):
            raise TypeError("[Trainer] needs either a model, or step and params")
        require_one_process(device=device, replicas=replicas, parallel=parallel, shards=shards, comm=comm)
        if isinstance(metrics, str) or not set(metrics) <= {"accuracy"}:
            raise ValueError(f"[Trainer] metrics must be ('accuracy',) or (), got {metrics!r}")
        optimizer = AdamW() if optimizer is None else optimizer
        _require_optimizer(optimizer)
        options = Options.checked(
            "Trainer",
            dtype=dtype,
            threads=threads,
            accumulate=accumulate,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            seed=0 if seed is None else seed,
        )
        self.model, self._optimizer, self._seed = model, optimizer, options.seed
        self._session: BaseSession
        if step is not None:
            if params is None:
                raise TypeError("[Trainer] step needs params, a dict of arrays")
            user = UserSession(step, params, optimizer=optimizer, options=options)
            self._session, self.step = user, user.step_of
        elif params is not None:
            raise TypeError("[Trainer] params go with step; a model has its own")
        elif model is not None:
            if seed is not None and getattr(getattr(model, "_store", None), "trained", False):
                raise ValueError(
                    f"[Trainer] seed={seed} decides initial parameters, but a trainer has updated this model's already: "
                    "leave seed out to train them further, or call reset(seed) on the new trainer for fresh ones"
                )
            native = Session(model, loss=loss, optimizer=optimizer, accuracy="accuracy" in metrics, **asdict(options))
            self._session, self.step = native, native.step
        self.epoch = 0  # complete epochs
        self._batch = 0  # batches done of the next one, after an interrupted fit
        self._training = False
        self._history = History()
        self._callbacks: tuple[Callback, ...] = ()
        self._callback_states: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._gate = Gate()
        self._validation_seconds = self._python_seconds = 0.0

    # State

    _settable = frozenset({"epoch"})
    _fixed = frozenset({"model", "step"})

    @property
    def optimizer(self) -> Optimizer:
        """What updates the parameters. Another one takes effect from the next step, also while ``fit`` runs; what it keeps
        for each parameter goes on where both keep it, and else begins at zero."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Optimizer) -> None:
        _require_optimizer(optimizer)
        with self._alone("optimizer"):
            self._session.set_optimizer(optimizer)
            self._optimizer = optimizer

    @property
    def seed(self) -> int:
        """What dropout and the order of plain arrays are drawn from."""
        return self._seed

    @property
    def history(self) -> History:
        """What the last run of ``fit`` measured, and those that it resumed."""
        return self._history

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """Those of the run of ``fit`` that is going on; empty otherwise."""
        return self._callbacks

    @property
    def params(self) -> Params:
        """The parameters by name: the live arrays, which the next step reads and changes. Assigning to a name writes into
        its array."""
        return self._session.params

    @params.setter
    def params(self, values: Params) -> None:
        if values is not self.params:  # it is after `params |= {...}`
            raise AttributeError(f"[{type(self).__name__}] params is read-only: params.update(values) writes into it")

    @property
    def session(self) -> Session:
        """Where the model's steps run; its ``grads`` are the gradients of the last step. ``TypeError`` with ``step=``."""
        if not isinstance(self._session, Session):
            raise TypeError("[Trainer.session] a trainer with a step of your own has no session of a model")
        return self._session

    @property
    def step_count(self) -> int:
        """Updates so far."""
        return self._session.step_count

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that training changes: ``params``, ``optimizer``, and the counts of steps, epochs and
        batches."""
        with self._gate.reading():
            return {
                "params": {name: array.copy() for name, array in self._session.params.items()},
                "optimizer": {name: array.copy() for name, array in self._session.state.items()},
                **self._counts(),
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave. A name or shape that does not fit raises ``ValueError`` and changes
        nothing."""
        with self._alone("load_state_dict"):
            tensors = {**state["params"], **{_STATE + name: array for name, array in state["optimizer"].items()}}
            problem = self._misfit(tensors)
            if problem:
                raise ValueError(f"[Trainer.load_state_dict] {problem}")
            try:
                counts = {name: _count(name, state.get(name, _DEFAULTS.get(name))) for name in self._counts()}
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"[Trainer.load_state_dict] {error}") from None
            self._restore(tensors, counts)

    def reset(self, seed: int) -> None:
        """Begin anew: fresh parameters from ``seed``, an optimizer without memory, no epochs and no history."""
        seed = whole("Trainer.reset", "seed", seed, 0, 2**63 - 1)
        with self._alone("reset"):
            if self.model is None:
                raise TypeError("[Trainer.reset] the parameters are your own: write fresh values into trainer.params")
            self.model.init(seed, self.model.store.dtype)
            for array in self._session.state.values():
                array[...] = 0
            counts = dict.fromkeys(self._counts(), 0) | {"seed": seed}
            self._session.restore(counts)
            self.epoch, self._batch, self._seed, self._history = 0, 0, seed, History()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, optimizer state and position to a safetensors file, which appears whole or not at all.

        A new trainer that loads it goes on bit for bit as this one would.
        """
        with self._gate.reading():
            tensors = {**self._session.params, **{_STATE + name: array for name, array in self._session.state.items()}}
            states, arrays = split(named_states(self._callbacks) or self._callback_states)
            tensors |= arrays
            metadata = {name: str(value) for name, value in self._counts().items()}
            metadata |= {
                "format": "gradring",
                "version": _VERSION,
                "optimizer": repr(self.optimizer),
                "callbacks": json.dumps(states),
            }
            checkpoint.write(path, tensors, {**metadata, "history": json.dumps(self._history.metrics)})

    def load(self, path: str | os.PathLike[str], *, weights_only: bool = False, strict: bool = True) -> list[str]:
        """Go on from a file of ``save``; the names of the tensors that were taken from it.

        ``weights_only=True`` takes the parameters alone and leaves optimizer, counts and history as they are;
        ``strict=False`` takes only those parameters whose name, shape and dtype fit, and nothing else either.

        A file that is damaged or foreign raises ``CheckpointCorrupt``, and a sound one for another model or optimizer
        ``CheckpointMismatch``, naming the file and the tensor. Nothing is changed then.
        """
        name = os.fspath(path)
        with self._alone("load"):
            tensors, metadata = checkpoint.read(name)
            states, tensors = joined(metadata.get("callbacks"), tensors, f"[Trainer.load] {name}")
            if weights_only or not strict:
                return self._take_weights(name, tensors, strict)
            problem = self._misfit(tensors)
            if problem:
                raise CheckpointMismatch(
                    f"[Trainer.load] {name}: {problem}; weights_only=True takes the parameters alone, and strict=False "
                    "those that fit"
                )
            try:
                if metadata["version"] != _VERSION:
                    raise ValueError(f"its version is {metadata['version']!r}, this gradring reads {_VERSION!r}")
                counts = {name: _count(name, metadata.get(name, _DEFAULTS.get(name))) for name in self._counts()}
                history = History.from_metrics(json.loads(metadata["history"]))
            except (KeyError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
                raise CheckpointCorrupt(f"[Trainer.load] {name}: the metadata do not fit: {error}") from error
            self._restore(tensors, counts)
            self._history, self._callback_states = history, states
            return list(tensors)

    def _take_weights(self, path: str, tensors: Mapping[str, NDArray[Any]], strict: bool) -> list[str]:
        params = self._session.params
        weights = {name: array for name, array in tensors.items() if not name.startswith(_STATE)}
        fitting = {
            name: array
            for name, array in weights.items()
            if name in params and params[name].shape == array.shape and params[name].dtype == array.dtype
        }
        if strict and len(fitting) < max(len(params), len(weights)):
            odd = sorted((params.keys() | weights.keys()) - fitting.keys())
            raise CheckpointMismatch(
                f"[Trainer.load] {path}: parameter {odd[0]!r} is not the same there and in this model; strict=False "
                "takes those that fit"
            )
        if self._training:
            raise GradringError("[Trainer.load] an epoch is running; load between epochs")
        for name, array in fitting.items():
            np.copyto(params[name], array)
        self._session.loaded()
        return list(fitting)

    # Training

    def fit(
        self,
        data: Any,
        epochs: int = 1,
        *,
        validate: Any = None,
        callbacks: Iterable[Callback] = (),
        resume: str | os.PathLike[str] | None = None,
        batch_size: int = 64,
        steps_per_epoch: int | None = None,
        on_signal: Literal["raise", "save"] = "raise",
        verbose: bool | Literal["auto", "bar", "lines"] = "auto",
    ) -> History:
        """Train for ``epochs`` passes over ``data``; returns what was measured in each.

        ``data`` is a ``gr.Loader``, or a pair of arrays ``(x, y)`` or ``{"x": x, "y": y}``, taken shuffled in batches of
        ``batch_size``, a map-style data set of such samples, or any iterable of batches. An epoch ends after
        ``steps_per_epoch`` batches, or after ``len(data)`` where there is a length. ``validate`` is the same, for the
        metrics ``val_loss`` and ``val_accuracy`` after each epoch. With ``resume`` the trainer first loads that
        checkpoint and then trains on until ``epochs`` are complete in all; ``"auto"`` takes the newest file of the
        ``Checkpoint`` without ``monitor`` among the callbacks, and starts afresh where there is none yet.

        ``verbose`` is ``"bar"``, ``"lines"`` (one per epoch), ``"auto"`` (a bar where one can be drawn, else lines) or
        False, on standard error. With ``on_signal="save"`` SIGINT, SIGTERM and SIGHUP end the run after the step at
        hand, every ``Checkpoint`` without ``monitor`` saves that state, and ``KeyboardInterrupt`` is raised.

        Arrays in memory are read where they lie: what is written to them meanwhile is trained on, and their memory must
        stay (``ndarray.resize(refcheck=False)`` takes it away under every view of an array, this one included).

        Ctrl-C raises ``KeyboardInterrupt`` after the step at hand; the trainer can be used, saved and resumed after it.
        """
        if not isinstance(epochs, (int, str)) and (hasattr(epochs, "__len__") or getattr(epochs, "shape", ())):
            raise TypeError("[Trainer.fit] x and y come as one pair: fit((x, y), epochs)")
        epochs = whole("Trainer.fit", "epochs", epochs, 0)
        limit = steps_per_epoch
        limit = None if limit is None else whole("Trainer.fit", "steps_per_epoch", limit, 1, also="None")
        choice("Trainer.fit", "on_signal", on_signal, ("raise", "save"))
        listeners = _listeners(callbacks, verbose)
        if isinstance(resume, str) and resume == "auto":
            resume = _newest(listeners)
        with self._alone("fit"), self._session.holding(), signals.ending(on_signal == "save"):
            if resume is not None:
                self._resume(resume, listeners)
            else:
                self._batch, self._history, self._callback_states = 0, History(), {}
            source = self._session.source("Trainer.fit", data, batch_size, shuffle=True, seed=self.seed)
            self._session.limit = limit
            check = None
            if validate is not None:
                check = self._session.source("Trainer.fit", validate, _EVALUATE, shuffle=False, seed=0)
                self._session.require_fit(check)
            names = self._session.metric_names()
            batches = length_of(source)
            batches = limit if batches is None else batches
            run = Run(
                self,
                self._history,
                first_epoch=self.epoch if resume is None else 0,
                last_epoch=epochs if resume is not None else self.epoch + epochs,
                batches=batches if batches is None or limit is None else min(batches, limit),
                epoch=self.epoch,
                batch=self._batch,
                source=source,
                names=("epoch", *names, *(f"val_{n}" for n in names if check is not None), "lr", "seconds"),
            )
            self._callbacks = tuple(listeners)
            try:
                for listener in listeners:
                    listener.on_fit_start(run)
                if resume is not None:
                    give(self._callback_states, listeners, os.fspath(resume))
                while self.epoch < run.last_epoch and not run.stop:
                    self._fit_epoch(run, source, check, listeners)
                run.ended = "complete"
            except BaseException as error:
                run.ended = type(error).__name__
                if isinstance(error, signals.Ended):
                    for listener in listeners:
                        if isinstance(listener, Checkpoint) and listener.monitor is None:
                            listener.save(run)
                raise
            finally:
                for listener in listeners:
                    listener.on_fit_end(run)
                self._callback_states, self._callbacks = named_states(listeners), ()
            return self._history

    def _resume(self, path: str | os.PathLike[str], listeners: list[Callback]) -> None:
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"[Trainer.fit] resume: there is no file {os.fspath(path)!r}; resume=None starts afresh, and so does "
                'resume="auto" while a Checkpoint among the callbacks has no file yet'
            )
        self.load(path)
        require_known(self._callback_states, listeners, os.fspath(path))

    def _fit_epoch(self, run: Run, source: Any, check: Any, listeners: list[Callback]) -> None:
        began, native = time.perf_counter(), self._native_seconds()
        run.epoch, run.batch, run.metrics = self.epoch, self._batch, {}

        def report(batches: int, metrics: dict[str, float]) -> None:
            run.batch, run.metrics = batches, metrics
            with self._gate.paused():
                for listener in listeners:
                    listener.on_report(run)

        self._training = True
        try:
            with self._gate.writing():
                metrics = self._session.train(source, self.epoch, self._batch, report)
            self._batch = self._session.batches()  # all of them, should Ctrl-C come before the epoch counts
        except BaseException:
            self._batch = self._session.batches()
            raise
        finally:
            self._training = False
        validating = time.perf_counter()
        native = self._native_seconds() - native
        if check is not None:
            with self._gate.writing():
                metrics |= {f"val_{name}": value for name, value in self._session.evaluate(check, _EVALUATE).items()}
        validated = time.perf_counter() - validating
        run.batch = run.batch if run.batches is None else run.batches
        run.metrics = {
            "epoch": float(self.epoch + 1),
            **metrics,
            "lr": float(self.optimizer.learning_rates(max(self.step_count - 1, 0), 1)[0]),
            "seconds": time.perf_counter() - began,
        }
        self._history.append(run.metrics)
        self.epoch, self._batch = self.epoch + 1, 0
        for listener in listeners:  # Checkpoints come last, and find in the others' states what they made of the epoch
            listener.on_epoch_end(run)
        self._validation_seconds += validated
        self._python_seconds += max(time.perf_counter() - began - native - validated, 0.0)

    # Use

    def evaluate(self, data: Any, *more: NoReturn, batch_size: int = _EVALUATE) -> dict[str, float]:
        """The mean loss, and the accuracy where there is one, over a ``gr.Loader``, arrays ``(x, y)`` or batches."""
        if more:
            raise TypeError("[Trainer.evaluate] x and y come as one pair: evaluate((x, y))")
        with self._gate.writing():  # alone: it runs on the session that trains
            source = self._session.source("Trainer.evaluate", data, batch_size, shuffle=False, seed=0)
            return self._session.evaluate(source, batch_size)

    def predict(self, x: Any, *, batch_size: int = _EVALUATE) -> NDArray[Any]:
        """The model's outputs for samples ``x`` of shape (N, ...): an array of N rows.

        ``x`` is an array or what becomes one, the path of an ``.npy`` file, a ``gr.Loader``, whose first field (or
        ``"x"``) counts, in its samples' order, or an iterable of batches.
        """
        size = whole("Trainer.predict", "batch_size", batch_size, 1)
        with self._gate.reading():
            parts = prediction_inputs("Trainer.predict", x, size)
            return (
                self._session.predict(x, size)
                if parts is None
                else joined_rows(self._session.predict(part, size) for part in parts)
            )

    def timings(self) -> Timings:
        """Seconds by phase since the trainer was made; printed, the bottleneck by name.

        What ``step`` takes beyond its native work is the caller's, and not counted.
        """
        seconds = {"validation": self._validation_seconds, "python": self._python_seconds}
        return Timings({**self._session.timings(), **seconds})

    def plan(self) -> Any:
        """How a step is carried out: printable, with instructions, buffers, kernels, bytes and FLOPs."""
        return self._session.plan()

    def __repr__(self) -> str:
        count = sum(array.size for array in self.params.values())
        return f"Trainer({count} parameters, {self.optimizer}, epoch={self.epoch}, step_count={self.step_count})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "[Trainer] it has native memory and threads, which cannot be copied or pickled: use "
            "save(path) and load(path), state_dict(), or a copy.deepcopy of its model"
        )

    # Within

    def _native_seconds(self) -> float:
        return sum(self._session.timings().values())

    def _counts(self) -> dict[str, int]:
        batch = self._session.batches() if self._training else self._batch
        return {**self._session.counters(), "epoch": self.epoch, "batch": batch, "seed": self._seed}

    def _misfit(self, tensors: Mapping[str, Any]) -> str:
        """What is missing, unknown or of another shape or dtype, by name; empty if all fits."""
        wanted = {**self._session.params, **{_STATE + name: array for name, array in self._session.state.items()}}
        for name, array in wanted.items():
            if name not in tensors:
                return f"tensor {name!r} is missing"
            got = tensors[name]
            if got.shape != array.shape or got.dtype != array.dtype:
                return f"tensor {name!r} is {got.shape} of {got.dtype}, expected {array.shape} of {array.dtype}"
        unknown = sorted(set(tensors) - set(wanted))
        return f"tensor {unknown[0]!r} is not in this model and its optimizer ({self.optimizer})" if unknown else ""

    def _restore(self, tensors: Mapping[str, Any], counts: Mapping[str, int]) -> None:
        if self._training:
            raise GradringError("[Trainer.load] an epoch is running; load between epochs, or with fit(resume=...)")
        for name, array in self._session.params.items():
            np.copyto(array, tensors[name])
        for name, array in self._session.state.items():
            np.copyto(array, tensors[_STATE + name])
        self._session.restore(counts)
        self._session.loaded()
        self.epoch, self._batch, self._seed = counts["epoch"], counts["batch"], counts["seed"]

    @contextmanager
    def _alone(self, method: str) -> Iterator[None]:
        """What trains: one thread at a time; callbacks, in the thread of ``fit``, may come in again."""
        if not self._lock.acquire(blocking=False):
            raise GradringError(
                f"[Trainer.{method}] this trainer is in use by another thread; a trainer serves one at a time"
            )
        try:
            yield
        finally:
            self._lock.release()


# Counts that a file may lack, because it is older than they are.
_DEFAULTS = {"fresh": 0}


def _count(name: str, text: Any) -> int:
    if text is None:
        raise ValueError(f"{name} is missing")
    value = int(text)
    if not 0 <= value < 2**63:
        raise ValueError(f"{name} is {value}: must be at least 0 and below 2**63")
    return value


def _require_optimizer(optimizer: Any) -> None:
    if isinstance(optimizer, Optimizer):
        return
    got = repr(optimizer) if isinstance(optimizer, str) else type(optimizer).__name__
    hint = ""
    if isinstance(optimizer, str):
        known = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
        hint = f": write optimizer=gr.optim.{known.get(optimizer.lower(), 'AdamW')}(lr)"
    elif isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        got, hint = f"the class {optimizer.__name__}", f": write optimizer=gr.optim.{optimizer.__name__}(lr)"
    raise TypeError(f"[Trainer] optimizer must be one of gr.optim, got {got}{hint}")


def _newest(listeners: Iterable[Callback]) -> str | None:
    """The newest file of the Checkpoints without monitor, which hold the latest state."""
    latest = [listener for listener in listeners if isinstance(listener, Checkpoint) and listener.monitor is None]
    if not latest:
        raise ValueError('[Trainer.fit] resume="auto" needs a gr.callbacks.Checkpoint without monitor among callbacks')
    files = [file for listener in latest if (file := listener.newest()) is not None]
    return max(files, key=lambda file: os.stat(file).st_mtime_ns, default=None)


def _listeners(callbacks: Any, verbose: Any) -> list[Callback]:
    """The callbacks, checked; a progress report before them, and those that save after the others."""
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(f"[Trainer.fit] callbacks must be a list of gr.callbacks, got {type(callbacks).__name__}")
    listeners = list(callbacks)
    for listener in listeners:
        if not isinstance(listener, Callback):
            hint = f": did you forget the brackets of {listener.__name__}()?" if isinstance(listener, type) else ""
            got = "a class" if isinstance(listener, type) else type(listener).__name__
            raise TypeError(f"[Trainer.fit] callbacks must be of gr.callbacks, got {got}{hint}")
    choice("Trainer.fit", "verbose", "auto" if verbose in (True, False) else verbose, ("auto", "bar", "lines"))
    if verbose is not False and not any(isinstance(listener, Progress) for listener in listeners):
        listeners.insert(0, Progress(style="auto" if verbose is True else verbose))
    return sorted(listeners, key=lambda listener: isinstance(listener, Checkpoint))
