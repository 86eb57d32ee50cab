"""Session: where the steps of one model run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring import _core, devices
from gradring.errors import NotBuilt
from gradring.loader import Loader
from gradring.metrics import Metrics, as_metrics
from gradring.nn.layer import Layer
from gradring.session.ahead import Ahead
from gradring.session.base import REPORT_SECONDS, Progress
from gradring.session.batch import Bound, Fields
from gradring.session.class_weights import labels_of
from gradring.session.culprits import rows_of
from gradring.session.data import batches_of, fields_in, order_of, require_batches
from gradring.session.measured import Measured
from gradring.session.peers import Peers
from gradring.session.rates import AHEAD
from gradring.session.results import EpochResult, Predicted, Report, Sums
from gradring.session.single_steps import SessionSteps
from gradring.session.whole_epochs import WholeEpochs

__all__ = ["Session"]

Array = NDArray[Any]


class Session(SessionSteps):
    """One model, its loss and its optimizer, ready to run natively.

    ``loss`` is one of ``gr.losses``, or a name: ``"cross_entropy"`` (integer labels), ``"mse"`` or
    ``"binary_cross_entropy"`` (targets of the output's shape, the model giving logits). A batch has the fields ``names``:
    the model's inputs, and the targets ``"y"``, and may have the samples' weights as ``"weight"``. Each batch shape gets a
    program when it first occurs, which is kept. ``threads`` is the most that a step may use; a measurement decides whether
    one or all are faster, and the results have the same bits either way. ``accumulate`` batches make one update, whose
    gradient is the mean over all their samples. ``nonfinite`` is ``"raise"`` (NonFinite before anything changes) or
    ``"ignore"``. ``fuse_update`` lets the optimizer use each tile of a gradient as soon as it is made, so the whole
    gradient is never in memory; None lets the session decide.

    One thread at a time may use a session; several sessions may run at the same time.

    >>> import numpy as np
    >>> from gradring import nn, optim
    >>> session = Session(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)), optimizer=optim.SGD(0.5))
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    >>> y = np.array([0, 1, 1, 0])
    >>> losses = [session.step(x, y) for _ in range(500)]
    >>> bool(losses[-1] < 0.1 < losses[0])
    True
    """

    step: Callable[..., float]
    """``step(x, y, weight=None) -> loss``: one batch; fields by position, by name, or in a dict. The loss is that of the
    parameters before the update; with weights it is the sum of the weighted losses over the sum of the weights. On a CUDA
    device it is a ``gr.cuda.Number``, which waits for the device when it is read."""

    def __init__(self, model: Layer, *, metrics: Metrics | Sequence[Any] = ("accuracy",), **options: Any) -> None:
        self._metrics = metrics if isinstance(metrics, Metrics) else as_metrics("Session", metrics)
        super().__init__(model, metrics=self._metrics.names, **options)
        self._accuracy = self._metrics.accuracy and self.loss.counts_right
        self._many = False
        self._source: tuple[Any, Bound] | None = None  # the source that this fit has bound, and its fields
        self._predicted: Predicted | None = None  # those of the current epoch
        self._start = self._batch = 0  # the batch of the epoch at which this run began; that of a step, for errors
        if self.device == devices.CPU:
            others = None if self.workers else self._programs.others
            ended = self._step_slowly if self.peers is None else self._end_step
            self.step, self._fast = _core.make_step_fast_path(self._native, self._step_slowly, others, ended)
        else:
            self._ahead = Ahead(self._native, self._error_of, self._no_step)
            self.step, self._fast = self._step_slowly, None
        self.rates_changed()

    def set_optimizer(self, optimizer: Any) -> None:
        self.require_usable("Trainer.optimizer")
        self.settle()
        super().set_optimizer(optimizer)

    def trace(self, on: bool) -> None:
        self._programs.trace(on)

    # Arrays and a loader's fields: natively, chunk by chunk

    def run(
        self,
        data: Sequence[ArrayLike] | Mapping[str, ArrayLike] | Fields | Bound,
        *,
        batch_size: int,
        max_steps: int | None = None,
        on_report: Callable[[Report], object] | None = None,
        report_every: float = REPORT_SECONDS,
        before_step: Callable[[], object] | None = None,
        predicted: Predicted | None = None,
        begun: bool = False,
        **order: Any,
    ) -> EpochResult:
        """Train on one epoch of arrays ``(x, y)``, natively and without Python's lock.

        In place of arrays it accepts a loader's fields (``Loader.fields``), whose own batch size and order then
        apply. ``order`` has the arguments of ``_core.ArrayFeed``: ``shuffle``, ``seed``, ``epoch``,
        ``drop_last``, ``start_batch``, ``rank``, ``world_size`` and ``pad``.

        ``on_report`` is called about every ``report_every`` seconds and once at the end. An exception from it, or Ctrl-C, ends
        the epoch between two steps. ``start_batch`` and ``max_steps`` select a part of the epoch's batches. With
        ``before_step``, which is called before each step, the loop returns to Python after every step. So does ``predicted``,
        to which each batch is added before its step. ``begun`` says that ``begin`` has been called for this epoch. What ends an
        epoch early leaves the gradients of an incomplete group waiting.
        """
        self.require_usable("train_epoch")
        self.settle()
        self._programs.store.whole.trained = True
        bound = data if isinstance(data, Bound) else self._bind(data, rows=batch_size)
        if data is bound:
            self._expect(bound, min(batch_size, len(bound)))
        if self.peers is not None and self.shards:
            order["blocks"] = True
        (own, key), reads = self._epoch_feed(bound, batch_size, **order), self._dtypes
        feed = own if self.peers is None else self.peers.feed(own)
        if not begun:
            self.begin(0)
        if not self._last_rows:  # should gradients of a checkpoint wait, and no batch be left
            self._last_rows, self._last_looks = min(batch_size, len(bound)), self._looks
            self._last_weighted = bound.weight is not None
        sums, left = Sums(self.loss), -1 if max_steps is None else max_steps
        sums.take(self.sums)
        started = told = time.perf_counter()
        one = before_step is not None or predicted is not None
        idle = ended = False
        while left != 0 and not ended and (rows := feed.next_rows()) != 0:
            self._ensure("train", rows, bound, reads)
            rates = self.rates.next(self.step_count, self._rates_ahead)
            if predicted is not None and rows > 0 and not idle:
                first, *ends = self._shard_ends(rows) if self.shards else (0, rows)
                own_rows = ends[-1] - first
                predicted.add(self._read(feed, bound, own_rows) if own_rows else None, [end - first for end in ends])
            if before_step is not None and rows > 0:
                before_step()
            result, part = self._programs.train(feed, rates, 1 if one else left, report_every, bound.weight is not None)
            sums.add(part)
            sums.take(self.sums)
            if result["fault"]:
                # When the batch of a worker has failed, others may have done later ones.
                after = part["steps"] - result.get("batch", part["steps"])
                self._fail_in_epoch(result, bound, int(sums.count("steps") - after), order)
            missing = not part["steps"] and result["end"] == "program"
            if missing:
                error = self._no_step(result)
                if idle:  # once, because another thread may have changed the model after this one had planned
                    raise error
            idle = missing
            ended = self.peers is not None and result["end"] == "epoch"  # those of all ranks: see Peers.feed
            left -= part["steps"] if left > 0 else 0
            now = time.perf_counter()
            if on_report is None or not part["steps"] or (one and now - told < report_every):
                continue
            if self._heard():
                with self._aside():
                    on_report(sums.report(rates, int(part["updates"]), now - started))
            told = now
        if one and on_report is not None and sums.count("steps"):
            with self._aside():
                on_report(sums.report(rates, int(part["updates"]), time.perf_counter() - started))
        self.flush()
        sums.require_weight(bound.weight is not None)
        if key is not None:
            bound.spare[key] = own
        return sums.result(time.perf_counter() - started)

    def _shard_ends(self, rows: int) -> list[int]:
        """The first row of this process's shards of a batch, and the end of each of them."""
        rank, size = (0, 1) if self.peers is None else (self.peers.rank, self.peers.size)
        each = self.shards // size
        return [rows * shard // self.shards for shard in range(rank * each, (rank + 1) * each + 1)]

    def _fail_in_epoch(self, result: Any, bound: Bound, steps: int, order: Mapping[str, Any]) -> None:
        if self.peers is not None and order.get("blocks"):  # the result has the rows of the whole batch
            result = {**result, "rows": self.peers.block(result["rows"])}
            order = {**order, "world_size": 1}
        self._fail(result, rows_of(bound, result, order), steps + order.get("start_batch", 0))

    # Sources: a loader's epoch runs natively, and batches that Python makes run one by one

    @contextmanager
    def holding(self) -> Iterator[None]:
        with super().holding():
            try:
                yield
            finally:
                self._source = self._predicted = None

    def begin(self, start: int, measured: Measured | None = None) -> None:
        super().begin(start, measured)
        if start and self.peers is not None and self._metrics.functions:
            raise NotBuilt(
                "resuming within an epoch with metrics that are functions of predictions is planned for comm=: resume at the "
                "end of an epoch"
            )
        join = self._join(blocks=self.shards > 0)
        self._predicted = Predicted(self._metrics, self._forward, measured if start else None, join)
        self._start = start

    def _kept(self) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        if self._predicted is None or not self._metrics.functions:
            return (), ()
        return self._predicted.first(self.batches() - self._start)

    def train(self, source: Any, epoch: int, start: int, progress: Progress) -> dict[str, float]:
        predicted = self._predicted
        assert predicted is not None
        known = self._source
        if known is not None and known[0] is source:
            source.require_open()
            bound = known[1]
        elif not isinstance(source, Loader) or not source.computable:
            return self._train_batches(source, epoch, start, progress, predicted)
        else:
            bound = self._bind_loader(source, start, blocks=self.peers is not None and self.shards > 0)
            # Arrays that are read where they lie have the same fields in every epoch of a fit, so bind them once.
            if bound.feed is None and not bound.copied and self.model.store.fits:
                self._source = source, bound
        if bound.arrays:
            self.settle_class_weight([bound.arrays[-1]])
        else:
            labels = labels_of(source, self.names) if self._plain is not None else None
            self.settle_class_weight(*(labels or (None,)), source=source)
        source.set_epoch(epoch)
        result = self.run(
            bound,
            batch_size=source.batch_size,
            epoch=epoch,
            start_batch=start,
            **order_of(source),
            max_steps=None if self.limit is None else max(self.limit - start, 0),
            on_report=lambda made: self.tell(progress, start + made.steps, self._chosen(made.metrics())),
            predicted=predicted if self._metrics.functions else None,
            begun=True,
        )
        return {**self._chosen(result.metrics()), **predicted.metrics(f"epoch {epoch + 1}")}

    def trains_whole_epochs(self, source: Any) -> bool:
        known, alone = self._source, self.peers is None and not (self.divides or self.workers)
        plain = self.accumulate == 1 and self.limit is None and self._plain is None and self.rates.constant is not None
        same = known is not None and known[0] is source and known[1].weight is None
        return same and alone and plain and self.device == devices.CPU and not self._metrics.functions

    def train_epochs(self, source: Any, epochs: WholeEpochs) -> None:
        known = self._source
        assert known is not None
        bound, order, batch_size = known[1], order_of(source), source.batch_size
        source.require_open()
        self.require_usable()
        self._expect(bound, min(batch_size, len(bound)))
        (feed, key), reads = self._epoch_feed(bound, batch_size, epochs.first, 0, **order), self._dtypes
        if not (rows := feed.next_rows()):
            return
        self._ensure("train", rows, bound, reads)
        try:
            result = epochs.train(self._native, feed, self.rates.next(self.step_count))
        finally:
            source.set_epoch(epochs.first + max(epochs.done - 1, 0))
        if result["fault"]:
            order["epoch"] = epochs.first + epochs.done
            source.set_epoch(order["epoch"])
            self._fail_in_epoch(result, bound, self.batches() - epochs.steps, order)
        bound.spare[key] = feed

    def metrics_of(self, sums: Mapping[str, float]) -> dict[str, float]:
        made = Sums(self.loss)
        made.add(sums)
        return self._chosen(made.metrics())

    def _train_batches(
        self, source: Any, epoch: int, start: int, progress: Progress, predicted: Predicted
    ) -> dict[str, float]:
        self.settle_class_weight(None)
        done, told = start, time.perf_counter()
        seen = start > 0 and self.pending > 0 and not self._last_rows  # the fields are unknown until a batch comes
        batches = batches_of(source, epoch, start - seen, self.limit)
        if seen and (last := next(batches, None)) is not None:
            bound = self._bind(fields_in(last, self.names), weightless=True)
            self._last_rows, self._last_looks = len(bound), self._looks
            self._last_weighted = bound.weight is not None
        for batch in batches:
            fields = fields_in(batch, self.names)
            # predict before the update, with the parameters for which the loss is computed
            predicted.add(fields[: len(self.names)] if len(fields[0]) else None)
            self._batch, self._many = done, True
            if self.peers is not None:
                self.peers.agreed = False
            try:
                self.step(*fields)
            finally:
                self._batch, self._many = 0, False
            done += 1
            if time.perf_counter() - told > REPORT_SECONDS:
                self.tell(progress, done, self._chosen(self._so_far().metrics()))
                told = time.perf_counter()
        if self.peers is not None:
            self._await_peers(self.peers, fields if done > start else None, done)
        self.flush()
        require_batches("fit", done)
        sums = self._so_far()
        sums.require_weight(done > start and len(fields) > len(self.names))
        return {**self._chosen(sums.metrics()), **predicted.metrics(f"epoch {epoch + 1}")}

    def _await_peers(self, peers: Peers, last: Sequence[Any] | None, done: int) -> None:
        """Take part without rows, after this rank's last batch, until the batches of all ranks are over."""
        if last is None:
            raise ValueError(
                "[Trainer.fit] this rank's source has no batch, so nothing says what a step looks like: each rank needs one"
            )
        if self.shards:
            self._whole_rows(0)  # raises unless the batches of all ranks are over
            return
        bound = self._bind(last, weightless=True)
        reads, left = self._dtypes, -1 if self.limit is None else self.limit - done
        feed = peers.feed(self._feed(bound, len(bound), start_batch=1))
        while left != 0 and (rows := feed.next_rows()) != 0:
            self._ensure("train", rows, bound, reads)
            rates = self.rates.next(self.step_count, AHEAD)
            result, part = self._programs.train(feed, rates, left, REPORT_SECONDS, bound.weight is not None)
            if result["fault"]:
                self._fail(result, None, done)
            left -= part["steps"] if left > 0 else 0
            if result["end"] == "epoch":
                break

    def _so_far(self) -> Sums:
        """The sums of the epoch so far."""
        sums = Sums(self.loss)
        sums.take(self.sums)
        return sums

    @property
    def fitting(self) -> bool:
        return self.model.store.whole.fits > 0

    def leave(self, error: BaseException) -> None:
        if self.peers is None or self.peers.native.busy:  # another thread of this rank is in a meeting, which goes on
            return
        self.forget()  # the others may have added to their planes in a step that now does not end
        self.peers.stop(error)
