"""Engine: trains a model natively. The trainer stands on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring import _core
from gradring.errors import NonFinite
from gradring.graph.passes import evaluate_graph, train_graph
from gradring.graph.plan import Plan
from gradring.graph.runtime import Runtime, rows_contiguous
from gradring.nn.layer import Layer
from gradring.nn.store import flat_array

if TYPE_CHECKING:
    from gradring.graph.ir import Graph
    from gradring.optim import Optimizer

__all__ = ["LOSSES", "Engine", "EpochResult", "Report"]

LOSSES = ("cross_entropy", "mse", "binary_cross_entropy")
Array = NDArray[Any]
_RATES = 16384
_SECONDS = 0.1


@dataclass(frozen=True)
class Report:
    """How far a running epoch is; the means are over its samples so far."""

    steps: int
    samples: int
    loss: float
    accuracy: float | None
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to. ``seconds`` has keys data, compute, update and total."""

    loss: float
    accuracy: float | None
    samples: int
    steps: int
    seconds: Mapping[str, float]


class Fields(Protocol):
    """What an engine asks of a loader: (x, y) to look at, of any values, and a native feed of its batches."""

    def __getitem__(self, index: int) -> Array: ...

    def __len__(self) -> int: ...

    def open(self, dtypes: Sequence[str]) -> Any:
        """A ``_core.Feed`` whose fields have these dtypes."""
        ...


class _Sums:
    """Totals of several native chunks."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def add(self, more: Mapping[str, float]) -> None:
        for key, value in more.items():
            self.values[key] = self.values.get(key, 0) + value

    def loss(self) -> float:
        weight = self.values.get("loss_weight", 0)
        return self.values["loss_sum"] / weight if weight else float("nan")

    def accuracy(self, has_classes: bool) -> float | None:
        samples = self.values.get("samples", 0)
        return self.values["correct"] / samples if has_classes and samples else None

    def count(self, key: str) -> int:
        return int(self.values.get(key, 0))


class Engine:
    """One model, its loss and its optimizer, ready to run natively.

    ``loss`` is ``"cross_entropy"`` (integer labels), ``"mse"`` or ``"binary_cross_entropy"`` (targets of the output's
    shape, the model giving logits). A program is planned for each batch shape when it first comes, and kept.
    ``threads`` is the most that a step may use; whether one or all are faster is measured, and the results have the
    same bits either way. ``accumulate`` batches make one update, whose gradient is the mean over all their samples.
    ``nonfinite`` is ``"raise"`` (NonFinite before anything changes) or ``"ignore"``. ``fuse_update`` lets the optimizer
    take gradients tile by tile as they are made, which then are never all there to look at; None decides.

    One thread at a time may use an engine; several engines may run at once.

    >>> import numpy as np
    >>> from gradring import nn, optim
    >>> engine = Engine(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)), optimizer=optim.SGD(0.5))
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    >>> y = np.array([0, 1, 1, 0])
    >>> losses = [engine.step(x, y) for _ in range(500)]
    >>> bool(losses[-1] < 0.1 < losses[0])
    True
    """

    step: Callable[[Array, Array], float]
    """``step(x, y) -> loss``: one batch. The loss is that of the parameters before the update."""

    def __init__(
        self,
        model: Layer,
        *,
        optimizer: Optimizer,
        loss: str = "cross_entropy",
        dtype: str = "float32",
        threads: int | Literal["auto"] = "auto",
        seed: int = 0,
        clip_norm: float | None = None,
        nonfinite: str = "raise",
        accumulate: int = 1,
        fuse_update: bool | None = None,
    ) -> None:
        if not isinstance(model, Layer):
            raise TypeError(f"[engine] model must be a gradring layer, got {type(model).__name__}")
        if loss not in LOSSES:
            raise ValueError(f"[engine] loss is {loss!r}: must be one of {', '.join(LOSSES)}")
        if nonfinite not in ("raise", "ignore"):
            raise ValueError(f"[engine] nonfinite is {nonfinite!r}: must be 'raise' or 'ignore'")
        if accumulate < 1:
            raise ValueError(f"[engine] accumulate is {accumulate}: must be at least 1")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"[engine] clip_norm is {clip_norm}: must be above 0, or None")
        if dtype not in ("float32", "float64"):
            raise ValueError(f"[engine] dtype is {dtype!r}: must be 'float32' or 'float64'")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.clip_norm, self.accumulate = clip_norm, accumulate
        self.fuse_update = fuse_update
        if model._store is None:
            model.init(seed, dtype)
        model.astype(dtype)
        self._runtime = Runtime(
            model,
            model.store,
            states=optimizer.state_names,
            lanes=_core.usable_cores() if threads == "auto" else threads,
            accumulate=accumulate,
            seed=seed,
            check_finite=nonfinite == "raise",
        )
        self._native = self._runtime.native
        store = model.store
        grads = flat_array(self._runtime.grad_arena, dtype, store.elements)
        states = flat_array(self._runtime.state_arena, dtype, len(optimizer.state_names) * store.elements)
        self.params: dict[str, Array] = store.arrays
        self._grads: dict[str, Array] = store.views(grads)
        self.state: dict[str, Array] = {}
        for number, name in enumerate(optimizer.state_names):
            part = states[number * store.elements : (number + 1) * store.elements]
            self.state.update({f"{name}.{key}": view for key, view in store.views(part).items()})
        self._totals = _Sums()
        self._last_rows = 0
        self.step, self._door = _core.make_step_door(self._native, self._step_slowly)
        self._constant = not callable(optimizer.lr)
        if self._constant:
            _core.teach_step_rates(self._door, [float(optimizer.lr)], 0, True)  # type: ignore[arg-type]

    @property
    def grads(self) -> dict[str, Array]:
        """The gradients that the next steps will make, by parameter: live arrays. Asking for them turns ``fuse_update``
        off, as it would not make them."""
        if self.fuse_update is not False:
            self.fuse_update = False
            self._runtime.clear()
        return self._grads

    @property
    def dtype(self) -> str:
        return self._runtime.dtype

    @property
    def threads(self) -> int:
        """The most threads that a step may use."""
        lanes: int = self._native.lanes
        return lanes

    @property
    def step_count(self) -> int:
        """Updates of the parameters so far; set it when restoring a checkpoint."""
        updates: int = self._native.updates
        return updates

    @step_count.setter
    def step_count(self, value: int) -> None:
        self._native.updates = value

    @property
    def seed(self) -> int:
        """What dropout is drawn from, together with ``draw_count``; part of a checkpoint too."""
        seed: int = self._native.seed
        return seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._native.seed = value

    @property
    def draw_count(self) -> int:
        """Training passes so far, which key dropout; part of a checkpoint too."""
        draws: int = self._native.draws
        return draws

    @draw_count.setter
    def draw_count(self, value: int) -> None:
        self._native.draws = value

    def run(
        self,
        arrays: Sequence[ArrayLike] | Fields,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        drop_last: bool = False,
        start_batch: int = 0,
        max_steps: int | None = None,
        on_report: Callable[[Report], object] | None = None,
        report_every: float = _SECONDS,
    ) -> EpochResult:
        """Train on one epoch of ``arrays`` (x, y), natively and without Python's lock.

        Instead of arrays it may be given a loader's fields (``Loader.fields``), whose own batch size and order count.

        ``on_report`` is called about every ``report_every`` seconds and once at the end. An exception from it, or
        Ctrl-C, ends the epoch between two steps. ``start_batch`` and ``max_steps`` take a part of the epoch's batches.
        """
        x, y = self._fields(arrays)
        order = {"shuffle": shuffle, "drop_last": drop_last, "seed": seed, "epoch": epoch, "start_batch": start_batch}
        feed = self._feed(arrays, x, y, batch_size, **order)
        sums, left = _Sums(), -1 if max_steps is None else max_steps
        lanes, started = 0, time.perf_counter()
        try:
            while (rows := feed.next_rows()) > 0 and left != 0:
                if self._ensure("train", rows, x, y) and rows == min(batch_size, len(x)):
                    self._native.tune("train", feed)
                lanes = lanes or self._native.program_lanes("train", rows)
                rates = self._rates(_RATES)
                result, part = self._native.chunk(True, feed, rates, left, report_every, lanes)
                sums.add(part)
                if result["fault"]:
                    self._fail(result, None if hasattr(arrays, "open") else y, sums.count("steps") + start_batch)
                left -= part["steps"] if left > 0 else 0
                if on_report is not None and part["steps"]:
                    on_report(self._report(sums, part, rates, started))
        except BaseException:
            self._native.drop_pending()
            raise
        self.flush()
        seconds = {key: sums.values.get(f"{key}_seconds", 0.0) for key in ("data", "compute", "update")}
        seconds["total"] = time.perf_counter() - started
        self._totals.add({"seconds": seconds["total"]})
        accuracy = sums.accuracy(self.loss != "mse")
        return EpochResult(sums.loss(), accuracy, sums.count("samples"), sums.count("steps"), seconds)

    def flush(self) -> None:
        """Update with the gradients of accumulated batches that still wait for the rest of their group, if any do."""
        if self._native.pending:
            self._native.flush(self._last_rows, self._rates(1))

    def evaluate(self, arrays: Sequence[ArrayLike] | Fields, batch_size: int = 1024) -> dict[str, float]:
        """Mean loss and, for cross entropy, accuracy over all samples, without dropout or updates."""
        x, y = self._fields(arrays)
        feed = self._feed(arrays, x, y, min(batch_size, len(x)))
        sums, lanes = _Sums(), 0
        none = np.empty(0)
        while (rows := feed.next_rows()) > 0:
            self._ensure("evaluate", rows, x, y)
            lanes = lanes or self._native.program_lanes("evaluate", rows)
            result, part = self._native.chunk(False, feed, none, -1, _SECONDS, lanes)
            sums.add(part)
            if result["fault"]:
                self._fail(result, None if hasattr(arrays, "open") else y, sums.count("steps"))
        metrics = {"loss": sums.loss()}
        accuracy = sums.accuracy(self.loss != "mse")
        if accuracy is not None:
            metrics["accuracy"] = accuracy
        return metrics

    def predict(self, x: ArrayLike, batch_size: int = 1024) -> Array:
        """The model's output for every row of ``x``, without dropout."""
        return self._runtime.predict(x, batch_size)

    def plan(self, rows: int | None = None) -> Plan:
        """The training program for a batch of ``rows`` (the largest one trained on): print it."""
        rows = rows or max((n for mode, n in self._runtime.plans if mode == "train"), default=0)
        if ("train", rows) not in self._runtime.plans:
            raise ValueError("[plan] no step of that batch size has run yet: plans are made when a batch shape comes")
        return self._runtime.plan_of("train", rows)

    def timings(self) -> dict[str, float]:
        """Seconds in training so far by phase: data (waiting and gathering), compute, update."""
        totals = self._native.totals()
        return {key: totals[f"{key}_seconds"] for key in ("data", "compute", "update")}

    def _fields(self, arrays: Sequence[ArrayLike] | Fields) -> tuple[Array, Array]:
        if not (isinstance(arrays, (tuple, list)) or hasattr(arrays, "open")) or len(arrays) != 2:
            raise TypeError("[engine] arrays must be (x, y)")
        x = rows_contiguous(arrays[0], "x", self.dtype)
        y = rows_contiguous(arrays[1], "y", self.dtype)
        if len(x) != len(y):
            raise ValueError(f"[engine] x has {len(x)} samples, y has {len(y)}: must be equal")
        if len(x) == 0:
            raise ValueError(f"[engine] x is {x.shape}: must have at least one sample")
        if x.size == 0:
            raise ValueError(f"[engine] x is {x.shape}: a sample must have at least one element")
        if self.loss == "cross_entropy":
            if y.ndim == 2 and y.shape[1] == 1:
                y = y.reshape(-1)
            if y.ndim != 1:
                raise ValueError(f"[cross_entropy] y is {y.shape}: must be (batch,) integer labels")
            if y.dtype.kind not in "iu":
                raise TypeError(f"[cross_entropy] y must be integer labels, got dtype {y.dtype}")
        return x, y

    def _wanted(self, x: Array, y: Array) -> list[tuple[Array, str]]:
        return [(x, self.dtype), (y, "int64" if self.loss == "cross_entropy" else self.dtype)]

    def _ensure(self, mode: str, rows: int, x: Array, y: Array) -> bool:
        shape = (rows, *x.shape[1:])

        def build() -> tuple[Graph, str | None]:
            if mode == "evaluate":
                graph = evaluate_graph(self.model, shape, self.loss)
            else:
                graph = train_graph(
                    self.model,
                    shape,
                    self.loss,
                    elements=self._runtime.store.elements,
                    optimizer=self.optimizer,
                    clip_norm=self.clip_norm,
                    accumulate=self.accumulate > 1,
                    layout=None if self.fuse_update is False else self._runtime.store.offsets,
                )
            self._check_target(graph.values["target"].shape, y)
            return graph, None

        if mode == "train":
            self._last_rows = rows
        return self._runtime.ensure(mode, shape, build)

    def _check_target(self, wanted: tuple[int, ...], y: Array) -> None:
        if y.shape[1:] != wanted[1:]:
            raise ValueError(
                f"[{self.loss}] y is {y.shape}, the model gives {wanted} for a batch of {wanted[0]}: "
                f"y must be (samples, {', '.join(map(str, wanted[1:]))})"
            )

    def _rates(self, count: int) -> NDArray[np.float64]:
        if self._constant:
            if not hasattr(self, "_constant_rates"):
                self._constant_rates = np.full(_RATES, self.optimizer.lr, np.float64)
            return self._constant_rates
        return self.optimizer.learning_rates(self.step_count, count)

    def _report(self, sums: _Sums, part: Mapping[str, float], rates: Array, started: float) -> Report:
        done = int(part["updates"])
        rate = float(rates[max(done - 1, 0)])
        accuracy = sums.accuracy(self.loss != "mse")
        seconds = time.perf_counter() - started
        return Report(sums.count("steps"), sums.count("samples"), sums.loss(), accuracy, rate, seconds)

    def _step_slowly(self, x: ArrayLike, y: ArrayLike) -> float:
        """A step that checks, converts, plans and explains; it teaches the fast door what to expect next time."""
        fields = self._fields((x, y))
        rows = len(fields[0])
        wanted = self._wanted(*fields)
        feed = self._runtime.feed(wanted, rows)
        if self._ensure("train", rows, *fields):
            self._native.tune("train", feed)
        shapes = [list(field.shape[1:]) for field in fields]
        _core.teach_step_shapes(self._door, wanted[0][1], shapes[0], wanted[1][1], shapes[1])
        if not self._constant:
            ahead = self.optimizer.learning_rates(self.step_count, _RATES).tolist()
            _core.teach_step_rates(self._door, ahead, self.step_count, False)
        lanes = self._native.program_lanes("train", rows)
        result, part = self._native.chunk(True, feed, self._rates(1), 1, 0.0, lanes)
        if result["fault"]:
            self._fail(result, fields[1], 0)
        loss: float = part["last_loss"]
        return loss

    def _feed(self, arrays: Any, x: Array, y: Array, batch_size: int, **order: Any) -> Any:
        wanted = self._wanted(x, y)
        if hasattr(arrays, "open"):
            return arrays.open([dtype for _, dtype in wanted])
        return self._runtime.feed(wanted, batch_size, **order)

    def _fail(self, result: Mapping[str, Any], y: Array | None, batch: int) -> None:
        fault = result["fault"]
        if fault == "callback":
            self._runtime.raise_callback()
            raise RuntimeError("[engine] a callback failed without saying why")
        if fault == "label":
            sample = result["sample"]
            plan_ = next(iter(self._runtime.plans.values()))
            classes = next(i.integers[1] for i in plan_.instructions if i.op == "cross_entropy")
            label = "out of range:" if y is None else f"{y[sample]},"
            raise ValueError(
                f"[cross_entropy] batch {batch}, row {result['row']} (sample {sample}): label is {label} "
                f"must be at least 0 and below {classes}, the number of classes; no parameter was changed by this batch"
            )
        raise NonFinite(
            f"[{self.loss}] the loss of step {self.step_count + 1} (batch {batch}) is not finite: the parameters are "
            f"those after step {self.step_count}. Try a lower learning rate, clip_norm, or look at that batch; "
            "nonfinite='ignore' goes on regardless"
        )
