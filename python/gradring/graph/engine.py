"""Engine: trains a model natively. The trainer stands on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring import _core
from gradring.arguments import choice
from gradring.errors import GradringError
from gradring.graph.batch import Fields, check_target, fields_of
from gradring.graph.faults import bad_number, fault_error
from gradring.graph.forward import Forward
from gradring.graph.passes import evaluate_graph, train_graph
from gradring.graph.plan import Plan, plan
from gradring.graph.results import EpochResult, Report, Sums
from gradring.graph.runtime import Runtime
from gradring.nn.layer import Layer
from gradring.nn.store import flat_array
from gradring.options import Options

if TYPE_CHECKING:
    from gradring.ir import Graph
    from gradring.nn.params import Params
    from gradring.optim import Optimizer

__all__ = ["LOSSES", "Engine"]

LOSSES = ("cross_entropy", "mse", "binary_cross_entropy")
Array = NDArray[Any]
_RATES = 16384
_SECONDS = 0.1


def step(x: ArrayLike, y: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
    """The arguments of ``Engine.step``; Python's own words for a wrong one name this function."""
    return x, y


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
        choice("Engine", "loss", loss, LOSSES)
        options = Options.checked(
            "Engine",
            dtype=dtype,
            threads=threads,
            accumulate=accumulate,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            seed=seed,
        )
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.clip_norm, self.accumulate = options.clip_norm, options.accumulate
        self.fuse_update = fuse_update
        self._check_finite = options.nonfinite == "raise"
        store = model.ensure(options.seed, options.dtype)
        if store.whole is not store:
            raise ValueError(
                f"[Engine] {model} is a layer of another model and shares its parameters: train that model, or a "
                "copy.deepcopy of this layer"
            )
        store = model.astype(options.dtype).store
        self._runtime = Runtime(
            model,
            store,
            states=optimizer.state_names,
            lanes=_core.usable_cores() if options.threads == "auto" else options.threads,
            accumulate=options.accumulate,
            seed=options.seed,
            check_finite=self._check_finite,
        )
        self._native = self._runtime.native
        grads = flat_array(self._runtime.grad_arena, options.dtype, store.elements)
        states = flat_array(self._runtime.state_arena, options.dtype, len(optimizer.state_names) * store.elements)
        self.params: Params = store.arrays
        self._grads: dict[str, Array] = store.views(grads)
        self.state: dict[str, Array] = {}
        for number, name in enumerate(optimizer.state_names):
            part = states[number * store.elements : (number + 1) * store.elements]
            self.state.update({f"{name}.{key}": view for key, view in store.views(part).items()})
        self._last_rows = 0
        self._forward = Forward(model, store, self.threads)
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

    def set_optimizer(self, optimizer: Optimizer) -> None:
        """Use this one from the next step on. Its state goes on under the names that it shares with the one before, and
        else begins at zero."""
        if optimizer.state_names != self.optimizer.state_names:
            views = self._runtime.replace_state(optimizer.state_names, self.state)
            if set(optimizer.state_names) - set(self.optimizer.state_names):
                self._native.fresh = self.step_count
            self.state.clear()
            self.state.update(views)
        else:
            self._runtime.clear()
        self.optimizer = optimizer
        self._constant = not callable(optimizer.lr)
        self.__dict__.pop("_constant_rates", None)
        constant = [float(optimizer.lr)] if self._constant else []  # type: ignore[arg-type]
        _core.teach_step_rates(self._door, constant, 0, self._constant)

    def require_fit(self, arrays: Sequence[ArrayLike] | Fields) -> None:
        """Raise what ``evaluate`` would raise about the shapes and dtypes of (x, y), without running anything."""
        x, y = fields_of(arrays, self.loss, self.dtype)
        graph = evaluate_graph(self.model, (1, *x.shape[1:]), self.loss)
        check_target(graph.values["target"].shape, y, self.loss)

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
        rank: int = 0,
        world_size: int = 1,
        pad: bool = False,
        max_steps: int | None = None,
        on_report: Callable[[Report], object] | None = None,
        report_every: float = _SECONDS,
    ) -> EpochResult:
        """Train on one epoch of ``arrays`` (x, y), natively and without Python's lock.

        Instead of arrays it may be given a loader's fields (``Loader.fields``), whose own batch size and order count.

        ``on_report`` is called about every ``report_every`` seconds and once at the end. An exception from it, or
        Ctrl-C, ends the epoch between two steps. ``start_batch`` and ``max_steps`` take a part of the epoch's batches.
        """
        self._require_own_store()
        self._runtime.store.whole.trained = True
        x, y = fields_of(arrays, self.loss, self.dtype)
        order = {"shuffle": shuffle, "drop_last": drop_last, "seed": seed, "epoch": epoch, "start_batch": start_batch}
        order |= {"rank": rank, "world_size": world_size, "pad": pad}
        feed = self._feed(arrays, x, y, batch_size, **order)
        sums, left = Sums(self.loss != "mse"), -1 if max_steps is None else max_steps
        started = time.perf_counter()
        try:
            while (rows := feed.next_rows()) > 0 and left != 0:
                self._ensure("train", rows, x, y)
                rates = self._rates(_RATES)
                result, part = self._native.chunk(True, feed, rates, left, report_every)
                sums.add(part)
                if result["fault"]:
                    lies = () if hasattr(arrays, "open") else (x, y)
                    shuffled = _core.Permutation(len(x), seed, epoch) if shuffle and lies else None
                    first, rows = result["position"], result["rows"]
                    numbers = np.arange(first, first + rows) if shuffled is None else shuffled.range(first, rows)
                    batch = sums.count("steps") + start_batch
                    self._fail(result, y if lies else None, batch, culprit=bad_number(lies, numbers))
                left -= part["steps"] if left > 0 else 0
                if on_report is not None and part["steps"]:
                    on_report(self._report(sums, part, rates, started))
        except BaseException:
            self.forget()
            raise
        self.flush()
        seconds = {key: sums.values.get(f"{key}_seconds", 0.0) for key in ("data", "compute", "update")}
        seconds["total"] = time.perf_counter() - started
        accuracy = sums.accuracy()
        return EpochResult(sums.loss(), accuracy, sums.count("samples"), sums.count("steps"), seconds)

    @property
    def pending(self) -> int:
        """Batches whose gradients wait for the rest of their group (``accumulate``)."""
        pending: int = self._native.pending
        return pending

    def forget(self) -> None:
        """Drop the gradients that wait for an update, as if their batches had never come."""
        self._native.drop_pending()

    def flush(self) -> None:
        """Update with the gradients of accumulated batches that still wait for the rest of their group, if any do."""
        if self._native.pending:
            result = self._native.flush(self._last_rows, self._rates(1))
            if result["fault"]:
                self._fail(result, None, 0)

    def evaluate(
        self,
        arrays: Sequence[ArrayLike] | Fields,
        batch_size: int = 1024,
        *,
        first_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> dict[str, float]:
        """Mean loss and, but for mse, accuracy over all samples of this rank, without dropout or updates. In errors
        batches are counted from ``first_batch``."""
        self._require_own_store()
        x, y = fields_of(arrays, self.loss, self.dtype)
        feed = self._feed(arrays, x, y, min(batch_size, len(x)), rank=rank, world_size=world_size)
        sums = Sums(self.loss != "mse")
        none = np.empty(0)
        while (rows := feed.next_rows()) > 0:
            self._ensure("evaluate", rows, x, y)
            result, part = self._native.chunk(False, feed, none, -1, _SECONDS)
            sums.add(part)
            if result["fault"]:
                labels, batch = None if hasattr(arrays, "open") else y, first_batch + sums.count("steps")
                first = result["position"]
                lies = () if labels is None else (x, labels)
                found = bad_number(lies, np.arange(first, min(first + result["rows"], len(x))))
                self._fail(result, labels, batch, training=False, culprit=found)
        metrics = {"loss": sums.loss()}
        accuracy = sums.accuracy()
        if accuracy is not None:
            metrics["accuracy"] = accuracy
        return metrics

    def predict(self, x: ArrayLike, batch_size: int = 1024) -> Array:
        """The model's output for every row of ``x``, without dropout."""
        self._require_own_store()
        return self._forward(x, batch_size)

    def plan(self, rows: int | None = None) -> Plan:
        """The training program for a batch of ``rows`` (the largest one trained on): print it."""
        rows = rows or max((n for mode, n in self._runtime.plans if mode == "train"), default=0)
        if ("train", rows) not in self._runtime.plans:
            raise ValueError("[plan] no step of that batch size has run yet: plans are made when a batch shape comes")
        kept = self._runtime.plan_of("train", rows)
        graph = self._graph("train", kept.input_shape)
        made = plan(graph, None, mode="train")
        return replace(made, graph=graph, barriers=kept.barriers, lanes=kept.lanes)

    def totals(self) -> dict[str, float]:
        """Sums over the training so far, native ones: of losses, their weights, samples, right answers, seconds."""
        totals: dict[str, float] = self._native.totals()
        return totals

    @property
    def fresh(self) -> int:
        """Updates that were done when the optimizer's state began at zero; part of a checkpoint too."""
        fresh: int = self._native.fresh
        return fresh

    @fresh.setter
    def fresh(self, value: int) -> None:
        self._native.fresh = value

    def timings(self) -> dict[str, float]:
        """Seconds in training so far by phase: data (waiting and gathering), compute, update."""
        totals = self._native.totals()
        return {key: totals[f"{key}_seconds"] for key in ("data", "compute", "update")}

    def _require_own_store(self) -> None:
        if self._runtime.store.retired:
            raise GradringError(
                "[Trainer] the model's parameters have moved to other memory since this trainer was made, by init or "
                "astype with another dtype, or as layers of another model: make a new trainer"
            )

    def _wanted(self, x: Array, y: Array) -> list[tuple[Array, str]]:
        return [(x, self.dtype), (y, "int64" if self.loss == "cross_entropy" else self.dtype)]

    def _ensure(self, mode: str, rows: int, x: Array, y: Array) -> bool:
        shape = (rows, *x.shape[1:])

        def build() -> tuple[Graph, str | None]:
            graph = self._graph(mode, shape)
            check_target(graph.values["target"].shape, y, self.loss)
            return graph, None

        if mode == "train":
            self._last_rows = rows
        return self._runtime.ensure(mode, shape, build)

    def _graph(self, mode: str, shape: tuple[int, ...]) -> Graph:
        """The graph of a training step or an evaluation for a batch of this shape."""
        layout = self._runtime.store.layout
        if mode == "evaluate":
            return evaluate_graph(self.model, shape, self.loss, dtype=self.dtype, layout=layout)
        return train_graph(
            self.model,
            shape,
            self.loss,
            dtype=self.dtype,
            layout=layout,
            optimizer=self.optimizer,
            clip_norm=self.clip_norm,
            accumulate=self.accumulate > 1,
            fuse_update=self.fuse_update is not False,
            check_finite=self._check_finite,
        )

    def _rates(self, count: int) -> NDArray[np.float64]:
        if self._constant:
            if not hasattr(self, "_constant_rates"):
                self._constant_rates = np.full(_RATES, self.optimizer.lr, np.float64)
            return self._constant_rates
        return self.optimizer.learning_rates(self.step_count, count)

    def _report(self, sums: Sums, part: Mapping[str, float], rates: Array, started: float) -> Report:
        done = int(part["updates"])
        rate = float(rates[max(done - 1, 0)])
        accuracy = sums.accuracy()
        seconds = time.perf_counter() - started
        return Report(sums.count("steps"), sums.count("samples"), sums.loss(), accuracy, rate, seconds)

    def _step_slowly(self, *given: ArrayLike, **named: ArrayLike) -> float:
        """A step that checks, converts, plans and explains; it teaches the fast door what to expect next time."""
        first: Any = given[0] if len(given) == 1 and not named else None
        if isinstance(first, Mapping):
            x, y = step(**first)
        else:
            x, y = step(*given, **named)
        self._require_own_store()
        self._runtime.store.whole.trained = True
        fields = fields_of((x, y), self.loss, self.dtype)
        rows = len(fields[0])
        wanted = self._wanted(*fields)
        feed = self._runtime.feed(wanted, rows)
        self._ensure("train", rows, *fields)
        shapes = [list(field.shape[1:]) for field in fields]
        _core.teach_step_shapes(self._door, wanted[0][1], shapes[0], wanted[1][1], shapes[1])
        if not self._constant:
            ahead = self.optimizer.learning_rates(self.step_count, _RATES).tolist()
            _core.teach_step_rates(self._door, ahead, self.step_count, False)
        result, part = self._native.chunk(True, feed, self._rates(1), 1, 0.0)
        if result["fault"]:
            self._fail(result, fields[1], 0, culprit=bad_number(fields, np.arange(rows)))
        loss: float = part["last_loss"]
        return loss

    def _feed(self, arrays: Any, x: Array, y: Array, batch_size: int, **order: Any) -> Any:
        wanted = self._wanted(x, y)
        if hasattr(arrays, "open"):
            return arrays.open([dtype for _, dtype in wanted])
        return self._runtime.feed(wanted, batch_size, **order)

    def _fail(
        self, result: Mapping[str, Any], y: Array | None, batch: int, *, training: bool = True, culprit: str = ""
    ) -> NoReturn:
        if result["fault"] == "callback":
            self._runtime.raise_callback()
            raise RuntimeError("[engine] a callback failed without saying why")
        if result["fault"] == "gradient":
            self.forget()  # the sums of micro-batches hold what was found
        plans = self._runtime.plans.values()
        updates = self.step_count if training else None
        raise fault_error(result, loss=self.loss, batch=batch, y=y, plans=plans, updates=updates, culprit=culprit)
