"""Session: where the steps of one model run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring import _core
from gradring.graph.faults import bad_number
from gradring.graph.passes import evaluate_graph
from gradring.loader import Loader
from gradring.nn.layer import Layer
from gradring.session.base import REPORT_SECONDS, Progress
from gradring.session.batch import Fields, check_target, fields_of
from gradring.session.data import Mean, batches_of, named_source, rows_of, x_and_y
from gradring.session.results import EpochResult, Report, Sums, Totals
from gradring.session.state import RATES, SessionState

__all__ = ["Session"]

Array = NDArray[Any]


def step(x: ArrayLike, y: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
    """The arguments of ``Session.step``; Python's own words for a wrong one name this function."""
    return x, y


class Session(SessionState):
    """One model, its loss and its optimizer, ready to run natively.

    ``loss`` is ``"cross_entropy"`` (integer labels), ``"mse"`` or ``"binary_cross_entropy"`` (targets of the output's
    shape, the model giving logits). A program is planned for each batch shape when it first comes, and kept.
    ``threads`` is the most that a step may use; whether one or all are faster is measured, and the results have the
    same bits either way. ``accumulate`` batches make one update, whose gradient is the mean over all their samples.
    ``nonfinite`` is ``"raise"`` (NonFinite before anything changes) or ``"ignore"``. ``fuse_update`` lets the optimizer
    take gradients tile by tile as they are made, which then are never all there to look at; None decides.

    One thread at a time may use a session; several sessions may run at once.

    >>> import numpy as np
    >>> from gradring import nn, optim
    >>> session = Session(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)), optimizer=optim.SGD(0.5))
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    >>> y = np.array([0, 1, 1, 0])
    >>> losses = [session.step(x, y) for _ in range(500)]
    >>> bool(losses[-1] < 0.1 < losses[0])
    True
    """

    step: Callable[[Array, Array], float]
    """``step(x, y) -> loss``: one batch. The loss is that of the parameters before the update."""

    def __init__(self, model: Layer, *, accuracy: bool = True, **options: Any) -> None:
        super().__init__(model, **options)
        self._accuracy = accuracy and self.loss != "mse"
        self.step, self._fast = _core.make_step_fast_path(self._native, self._step_slowly)
        self._expect_rates()

    def set_optimizer(self, optimizer: Any) -> None:
        super().set_optimizer(optimizer)
        self._expect_rates()

    def _expect_rates(self) -> None:
        constant = [] if self._constant_rates is None else [float(self._constant_rates[0])]
        _core.set_expected_rates(self._fast, constant, 0, bool(constant))

    def _step_slowly(self, *given: ArrayLike, **named: ArrayLike) -> float:
        """A step that checks, converts, plans and explains; it tells the fast path what to expect next time."""
        first: Any = given[0] if len(given) == 1 and not named else None
        x, y = step(**first) if isinstance(first, Mapping) else step(*given, **named)
        self._require_own_store()
        self._programs.store.whole.trained = True
        fields = fields_of((x, y), self.loss, self.dtype)
        rows = len(fields[0])
        wanted = self._wanted(*fields)
        feed = _core.ArrayFeed(wanted, rows)
        self._ensure("train", rows, *fields)
        shapes = [list(field.shape[1:]) for field in fields]
        _core.set_expected_shapes(self._fast, wanted[0][1], shapes[0], wanted[1][1], shapes[1])
        if self._constant_rates is None:
            ahead = self.optimizer.learning_rates(self.step_count, RATES).tolist()
            _core.set_expected_rates(self._fast, ahead, self.step_count, False)
        result, part = self._native.chunk(True, feed, self._rates(1), 1, 0.0)
        if result["fault"]:
            self._fail(result, fields[1], 0, culprit=bad_number(fields, np.arange(rows)))
        loss: float = part["last_loss"]
        return loss

    def flush(self) -> None:
        """Update with the gradients of accumulated batches that still wait for the rest of their group, if any do."""
        if self._native.pending:
            result = self._native.flush(self._last_rows, self._rates(1))
            if result["fault"]:
                self._fail(result, None, 0)

    # Arrays and a loader's fields: natively, chunk by chunk

    def run(
        self,
        arrays: Sequence[ArrayLike] | Fields,
        *,
        batch_size: int,
        max_steps: int | None = None,
        on_report: Callable[[Report], object] | None = None,
        report_every: float = REPORT_SECONDS,
        **order: Any,
    ) -> EpochResult:
        """Train on one epoch of ``arrays`` (x, y), natively and without Python's lock.

        Instead of arrays it may be given a loader's fields (``Loader.fields``), whose own batch size and order count.
        ``order`` is what ``_core.ArrayFeed`` takes: ``shuffle``, ``seed``, ``epoch``, ``drop_last``, ``start_batch``,
        ``rank``, ``world_size`` and ``pad``.

        ``on_report`` is called about every ``report_every`` seconds and once at the end. An exception from it, or
        Ctrl-C, ends the epoch between two steps. ``start_batch`` and ``max_steps`` take a part of the epoch's batches.
        """
        self._require_own_store()
        self._programs.store.whole.trained = True
        x, y = fields_of(arrays, self.loss, self.dtype)
        feed = self._feed(arrays, x, y, batch_size, **order)
        sums, left = Sums(self.loss != "mse"), -1 if max_steps is None else max_steps
        started = time.perf_counter()
        try:
            while (rows := feed.next_rows()) > 0 and left != 0:
                self._ensure("train", rows, x, y)
                rates = self._rates(RATES)
                result, part = self._native.chunk(True, feed, rates, left, report_every)
                sums.add(part)
                if result["fault"]:
                    self._fail_in_epoch(result, arrays, x, y, sums.count("steps"), order)
                left -= part["steps"] if left > 0 else 0
                if on_report is not None and part["steps"]:
                    on_report(sums.report(rates, int(part["updates"]), time.perf_counter() - started))
        except BaseException:
            self.forget()
            raise
        self.flush()
        return sums.result(time.perf_counter() - started)

    def _fail_in_epoch(
        self, result: Any, arrays: Any, x: Array, y: Array, steps: int, order: Mapping[str, Any]
    ) -> None:
        lies = () if hasattr(arrays, "open") else (x, y)
        shuffled = None
        if order.get("shuffle") and lies:
            shuffled = _core.Permutation(len(x), order.get("seed", 0), order.get("epoch", 0))
        first, rows = result["position"], result["rows"]
        numbers = np.arange(first, first + rows) if shuffled is None else shuffled.range(first, rows)
        batch = steps + order.get("start_batch", 0)
        self._fail(result, y if lies else None, batch, culprit=bad_number(lies, numbers))

    def evaluate_arrays(
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
            result, part = self._native.chunk(False, feed, none, -1, REPORT_SECONDS)
            sums.add(part)
            if result["fault"]:
                labels, batch = None if hasattr(arrays, "open") else y, first_batch + sums.count("steps")
                first = result["position"]
                lies = () if labels is None else (x, labels)
                found = bad_number(lies, np.arange(first, min(first + result["rows"], len(x))))
                self._fail(result, labels, batch, training=False, culprit=found)
        return sums.metrics()

    def _feed(self, arrays: Any, x: Array, y: Array, batch_size: int, **order: Any) -> Any:
        wanted = self._wanted(x, y)
        if hasattr(arrays, "open"):
            return arrays.open([dtype for _, dtype in wanted])
        return _core.ArrayFeed(wanted, batch_size, **order)

    # Sources: a loader's epoch runs natively, and batches that Python makes run one by one

    def source(self, caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int) -> Any:
        """What batches come from; fields that have names are bound by them."""
        return named_source(caller, data, batch_size, shuffle=shuffle, seed=seed)

    def metric_names(self) -> tuple[str, ...]:
        return ("loss", "accuracy") if self._accuracy else ("loss",)

    def require_fit(self, source: Any) -> None:
        if isinstance(source, Loader) and source.computable:
            arrays = source.fields(in_order=True) if source.arrays is None else source.arrays
            x, y = fields_of(arrays, self.loss, self.dtype)
            graph = evaluate_graph(self.model, (1, *x.shape[1:]), self.loss)
            check_target(graph.values["target"].shape, y, self.loss)

    def train(self, source: Any, epoch: int, start: int, progress: Progress) -> dict[str, float]:
        self.forget()
        self.begin(start)
        try:
            if not isinstance(source, Loader) or not source.computable:
                return self._train_batches(source, epoch, start, progress)
            source.set_epoch(epoch)
            arrays = source.arrays  # read where they lie, by the step's own threads; anything else is fed
            result = self.run(
                source.fields(start) if arrays is None else arrays,
                batch_size=source.batch_size,
                shuffle=source.shuffle,
                seed=source.seed,
                epoch=epoch,
                drop_last=source.drop_last,
                start_batch=start,
                rank=source.rank,
                world_size=source.world_size,
                pad=source.pad,
                max_steps=None if self.limit is None else max(self.limit - start, 0),
                on_report=lambda made: self.tell(progress, start + made.steps, self._chosen(made.metrics())),
            )
            return self._chosen(result.metrics())
        except BaseException:
            self.forget()  # they will be drawn again, with the same dropout
            raise

    def _train_batches(self, source: Any, epoch: int, start: int, progress: Progress) -> dict[str, float]:
        done, told = start, time.perf_counter()
        totals = Totals(self.totals, self.loss != "mse")
        for batch in batches_of(source, epoch, start, self.limit):
            totals.begin()
            self.step(*x_and_y(batch))
            totals.end()
            done += 1
            if time.perf_counter() - told > REPORT_SECONDS:
                self.tell(progress, done, self._chosen(totals.metrics()))
                told = time.perf_counter()
        self.flush()
        return self._chosen(totals.metrics())

    def evaluate(self, source: Any, batch_size: int = 1024) -> dict[str, float]:
        """Mean loss, and accuracy where there is one; nothing is updated."""
        if isinstance(source, tuple):
            return self._chosen(self.evaluate_arrays(source, batch_size))
        if isinstance(source, Loader) and source.computable:
            arrays = source.arrays
            fields = source.fields(in_order=True) if arrays is None else arrays
            ranks = {"rank": source.rank, "world_size": source.world_size}
            return self._chosen(self.evaluate_arrays(fields, batch_size, **ranks))
        means: dict[str, Mean] = {}
        for number, batch in enumerate(batches_of(source)):
            x, y = x_and_y(batch)
            for name, value in self.evaluate_arrays((x, y), batch_size, first_batch=number).items():
                means.setdefault(name, Mean()).add(value, rows_of(x))
        return self._chosen({name: mean.value for name, mean in means.items()})

    def predict(self, x: ArrayLike, batch_size: int = 1024) -> Array:
        """The model's output for every row of ``x``, without dropout."""
        self._require_own_store()
        return self._forward(x, batch_size)

    def _chosen(self, metrics: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if self._accuracy or name != "accuracy"}
