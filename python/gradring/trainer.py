"""Trainer: fit, step, evaluate, predict, save and load, over one engine."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradring import checkpoint
from gradring.arguments import whole
from gradring.callbacks.base import Callback, Run
from gradring.callbacks.progress import Progress
from gradring.errors import CheckpointCorrupt, GradringError
from gradring.history import History
from gradring.loader import as_source
from gradring.native_run import NativeRun
from gradring.optim import AdamW, Optimizer
from gradring.options import Options, require_one_process
from gradring.timings import Timings
from gradring.user_step import UserFunction, UserStep

if TYPE_CHECKING:
    from gradring.graph import Engine
    from gradring.nn.layer import Layer

__all__ = ["Trainer"]

_STATE = "optimizer/"  # before the names of the optimizer's arrays in a checkpoint
_VERSION = "1"
_EVALUATE = 1024  # samples at a time; large, since nothing is kept for a backward pass


class Trainer:
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
    arrays, the order.

    A trainer serves one thread at a time; another one that calls it meanwhile gets a ``GradringError``. Any number of
    trainers may work at once.

    >>> import gradring as gr
    >>> train, test = gr.datasets.digits()
    >>> model = gr.nn.Sequential(gr.nn.Linear(64, 32), gr.nn.ReLU(), gr.nn.Linear(32, 10))
    >>> trainer = gr.Trainer(model, optimizer=gr.optim.AdamW(1e-2))
    >>> history = trainer.fit(train, epochs=5, validate=test)
    >>> history.last["val_accuracy"] > 0.9
    True
    """

    # loss = trainer.step(x, y): one update from one batch, without running statistics. An attribute, the engine's own
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
        seed: int = 0,
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
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"[Trainer] optimizer must be one of gr.optim, got {type(optimizer).__name__}")
        options = Options.checked(
            "Trainer",
            dtype=dtype,
            threads=threads,
            accumulate=accumulate,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            seed=seed,
        )
        self.model, self.optimizer, self.seed = model, optimizer, options.seed
        self._runner: NativeRun | UserStep
        if step is not None:
            if params is None:
                raise TypeError("[Trainer] step needs params, a dict of arrays")
            self._runner = UserStep(step, params, optimizer=optimizer, options=options)
            self.step = self._runner.step_of
        elif params is not None:
            raise TypeError("[Trainer] params go with step; a model has its own")
        elif model is not None:
            from gradring.graph import Engine

            engine = Engine(model, loss=loss, optimizer=optimizer, **asdict(options))
            self._runner = NativeRun(engine, accuracy="accuracy" in metrics)
            self.step = engine.step
        self.epoch = 0  # complete epochs
        self._batch = 0  # batches done of the next one, after an interrupted fit
        self._training = False
        self._history = History()
        self._lock = threading.RLock()
        self._validation_seconds = self._python_seconds = 0.0

    # State

    @property
    def params(self) -> dict[str, NDArray[Any]]:
        """The parameters by name: the live arrays, which the next step reads and changes."""
        return self._runner.params

    @property
    def engine(self) -> Engine:
        """What trains the model; its ``grads`` are the gradients of the last step. ``TypeError`` with ``step=``."""
        if not isinstance(self._runner, NativeRun):
            raise TypeError("[Trainer.engine] a trainer with a step of your own has no engine")
        return self._runner.engine

    @property
    def step_count(self) -> int:
        """Updates so far."""
        return self._runner.step_count

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that training changes: ``params``, ``optimizer``, and the counts of steps, epochs and
        batches."""
        with self._alone("state_dict"):
            return {
                "params": {name: array.copy() for name, array in self._runner.params.items()},
                "optimizer": {name: array.copy() for name, array in self._runner.state.items()},
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
            self._restore(tensors, {name: int(state[name]) for name in self._counts()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, optimizer state and position to a safetensors file, which appears whole or not at all.

        A new trainer that loads it goes on bit for bit as this one would.
        """
        with self._alone("save"):
            tensors = {**self._runner.params, **{_STATE + name: array for name, array in self._runner.state.items()}}
            metadata = {name: str(value) for name, value in self._counts().items()}
            metadata |= {"format": "gradring", "version": _VERSION, "optimizer": repr(self.optimizer)}
            checkpoint.write(path, tensors, {**metadata, "history": json.dumps(self._history.metrics)})

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a file of ``save``.

        A file that is damaged, foreign, or does not fit the model and the optimizer raises ``CheckpointCorrupt``,
        naming the file and the tensor, and changes nothing.
        """
        with self._alone("load"):
            tensors, metadata = checkpoint.read(path)
            problem = self._misfit(tensors)
            if problem:
                raise CheckpointCorrupt(f"[Trainer.load] {os.fspath(path)}: {problem}")
            try:
                if metadata["version"] != _VERSION:
                    raise ValueError(f"its version is {metadata['version']!r}, this gradring reads {_VERSION!r}")
                counts = {name: _count(name, metadata[name]) for name in self._counts()}
                history = History.from_metrics(json.loads(metadata["history"]))
            except (KeyError, ValueError, TypeError) as error:
                raise CheckpointCorrupt(
                    f"[Trainer.load] {os.fspath(path)}: the metadata do not fit: {error}"
                ) from error
            self._restore(tensors, counts)
            self._history = history

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
    ) -> History:
        """Train for ``epochs`` passes over ``data``; returns what was measured in each.

        ``data`` is a ``gr.Loader``, or a pair of arrays ``(x, y)``, taken shuffled in batches of ``batch_size``, or
        any iterable of batches. ``validate`` is the same, for the metrics ``val_loss`` and ``val_accuracy`` after
        each epoch. With ``resume`` the trainer first loads that checkpoint and then trains on until ``epochs`` are
        complete in all.

        Arrays in memory are read where they lie: what is written to them meanwhile is trained on, and their memory must
        stay (``ndarray.resize(refcheck=False)`` takes it away under every view of an array, this one included).

        Ctrl-C raises ``KeyboardInterrupt`` after the step at hand; the trainer can be used, saved and resumed after it.
        """
        epochs = whole("Trainer.fit", "epochs", epochs, 0)
        with self._alone("fit"), self._runner.holding():
            if resume is not None:
                self.load(resume)
            else:
                self._batch, self._history = 0, History()
            source = as_source("Trainer.fit", data, batch_size, shuffle=True, seed=self.seed)
            check = None
            if validate is not None:
                check = as_source("Trainer.fit", validate, _EVALUATE, shuffle=False, seed=0)
            run = Run(
                self,
                self._history,
                first_epoch=self.epoch if resume is None else 0,
                last_epoch=epochs if resume is not None else self.epoch + epochs,
                batches=len(source) if hasattr(source, "__len__") else None,
                epoch=self.epoch,
                batch=self._batch,
                source=source,
            )
            listeners = _with_progress(callbacks)
            try:
                for listener in listeners:
                    listener.on_fit_start(run)
                while self.epoch < run.last_epoch and not run.stop:
                    self._fit_epoch(run, source, check, listeners)
            finally:
                for listener in listeners:
                    listener.on_fit_end(run)
            return self._history

    def _fit_epoch(self, run: Run, source: Any, check: Any, listeners: list[Callback]) -> None:
        began, native = time.perf_counter(), self._native_seconds()
        run.epoch, run.batch, run.metrics = self.epoch, self._batch, {}

        def report(batches: int, metrics: dict[str, float]) -> None:
            run.batch, run.metrics = batches, metrics
            for listener in listeners:
                listener.on_report(run)

        self._training = True
        try:
            metrics = self._runner.train(source, self.epoch, self._batch, report)
        except BaseException:
            self._batch = self._runner.batches()
            raise
        finally:
            self._training = False
        validating = time.perf_counter()
        native = self._native_seconds() - native
        if check is not None:
            metrics |= {f"val_{name}": value for name, value in self._runner.evaluate(check, _EVALUATE).items()}
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
        for listener in listeners:
            listener.on_epoch_end(run)
        self._validation_seconds += validated
        self._python_seconds += max(time.perf_counter() - began - native - validated, 0.0)

    # Use

    def evaluate(self, data: Any, *, batch_size: int = _EVALUATE) -> dict[str, float]:
        """The mean loss, and the accuracy where there is one, over a ``gr.Loader``, arrays ``(x, y)`` or batches."""
        with self._alone("evaluate"):
            source = as_source("Trainer.evaluate", data, batch_size, shuffle=False, seed=0)
            return self._runner.evaluate(source, batch_size)

    def predict(self, x: Any, *, batch_size: int = _EVALUATE) -> NDArray[Any]:
        """The model's outputs for samples ``x`` of shape (N, ...): an array of N rows."""
        with self._alone("predict"):
            return self._runner.predict(x, batch_size)

    def timings(self) -> Timings:
        """Seconds by phase since the trainer was made; printed, the bottleneck by name.

        What ``step`` takes beyond its native work is the caller's, and not counted.
        """
        seconds = {"validation": self._validation_seconds, "python": self._python_seconds}
        return Timings({**self._runner.timings(), **seconds})

    def plan(self) -> Any:
        """How a step is carried out: printable, with instructions, buffers, kernels, bytes and FLOPs."""
        return self._runner.plan()

    def __repr__(self) -> str:
        count = sum(array.size for array in self.params.values())
        return f"Trainer({count} parameters, {self.optimizer}, epoch={self.epoch}, step_count={self.step_count})"

    # Within

    def _native_seconds(self) -> float:
        return sum(self._runner.timings().values())

    def _counts(self) -> dict[str, int]:
        batch = self._runner.batches() if self._training else self._batch
        return {**self._runner.counters(), "epoch": self.epoch, "batch": batch, "seed": self.seed}

    def _misfit(self, tensors: Mapping[str, Any]) -> str:
        """What is missing, unknown or of another shape or dtype, by name; empty if all fits."""
        wanted = {**self._runner.params, **{_STATE + name: array for name, array in self._runner.state.items()}}
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
        for name, array in self._runner.params.items():
            np.copyto(array, tensors[name])
        for name, array in self._runner.state.items():
            np.copyto(array, tensors[_STATE + name])
        self._runner.restore(counts)
        self.epoch, self._batch, self.seed = counts["epoch"], counts["batch"], counts["seed"]

    @contextmanager
    def _alone(self, method: str) -> Iterator[None]:
        """One thread at a time; callbacks, in the thread of ``fit``, may come in again."""
        if not self._lock.acquire(blocking=False):
            raise GradringError(
                f"[Trainer.{method}] this trainer is in use by another thread; a trainer serves one at a time"
            )
        try:
            yield
        finally:
            self._lock.release()


def _count(name: str, text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(f"{name} is {value}")
    return value


def _with_progress(callbacks: Iterable[Callback]) -> list[Callback]:
    """The callbacks, checked, and a progress bar before them if there is a terminal and none of their own."""
    listeners = list(callbacks)
    for listener in listeners:
        if not isinstance(listener, Callback):
            raise TypeError(f"[Trainer.fit] callbacks must be of gr.callbacks, got {type(listener).__name__}")
    if (
        not any(isinstance(listener, Progress) for listener in listeners)
        and sys.stderr is not None
        and sys.stderr.isatty()
    ):
        listeners.insert(0, Progress())
    return listeners
