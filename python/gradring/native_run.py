"""Epochs over the native engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from gradring.epochs import REPORT_SECONDS, EpochPlace, Mean, Report, batches_of, require_names, x_and_y
from gradring.loader import Loader, as_source

if TYPE_CHECKING:
    from gradring.graph import Engine, EpochResult
    from gradring.graph.results import Report as NativeReport
    from gradring.nn.params import Params
    from gradring.optim import Optimizer

__all__ = ["NativeRun"]


class NativeRun(EpochPlace):
    """Runs whole epochs natively over a loader's arrays, and other sources batch by batch."""

    def __init__(self, engine: Engine, *, accuracy: bool) -> None:
        self.engine, self._accuracy = engine, accuracy
        self.params: Params = engine.params
        self.state: dict[str, NDArray[Any]] = engine.state

    @property
    def step_count(self) -> int:
        return self.engine.step_count

    @contextmanager
    def holding(self) -> Iterator[None]:
        """While a fit runs, nobody may fill the parameters anew or move them."""
        store = self.engine.model.store
        store.fits += 1
        try:
            yield
        finally:
            store.fits -= 1

    def source(self, caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int) -> Any:
        """What batches come from; fields that have names are bound by them."""
        if isinstance(data, Mapping):
            require_names(f"[{caller}] data", [*data])
            data = (data["x"], data["y"])
        source = as_source(caller, data, batch_size, shuffle=shuffle, seed=seed)
        if isinstance(source, Loader) and source.names is not None:
            require_names(f"[{caller}] the loader", source.names)
        return source

    def metric_names(self, source: Any) -> tuple[str, ...]:
        """What an epoch over this source measures."""
        return ("loss", "accuracy") if self._accuracy and self.engine.loss != "mse" else ("loss",)

    def require_fit(self, source: Any) -> None:
        """Raise now what validation data would raise after an epoch."""
        if isinstance(source, Loader) and source.computable:
            self.engine.require_fit(source.fields(in_order=True) if source.arrays is None else source.arrays)

    def set_optimizer(self, optimizer: Optimizer) -> None:
        self.engine.set_optimizer(optimizer)

    def loaded(self) -> None:
        """The parameters are now those of a file, or as good as fresh."""
        self.engine.model.store.whole.trained = False

    def _passes(self) -> tuple[int, int]:
        return self.engine.draw_count, self.engine.pending

    def train(self, source: Any, epoch: int, start: int, report: Report) -> dict[str, float]:
        """An epoch from batch ``start`` on. An incomplete group of accumulated batches is applied at its end."""
        self.engine.forget()
        self.begin(start)
        try:
            if not isinstance(source, Loader) or not source.computable:
                return self._train_batches(source, epoch, start, report)
            source.set_epoch(epoch)
            arrays = source.arrays  # read where they lie, by the step's own threads; anything else is fed
            result = self.engine.run(
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
                on_report=lambda made: self.tell(report, start + made.steps, self._metrics(made)),
            )
            return self._metrics(result)
        except BaseException:
            self.engine.forget()  # they will be drawn again, with the same dropout
            raise

    def _train_batches(self, source: Any, epoch: int, start: int, report: Report) -> dict[str, float]:
        done, told = start, time.perf_counter()
        totals = _Totals(self.engine)
        for batch in batches_of(source, epoch, start, self.limit):
            totals.begin()
            self.engine.step(*x_and_y(batch))
            totals.end()
            done += 1
            if time.perf_counter() - told > REPORT_SECONDS:
                self.tell(report, done, self._chosen(totals.metrics()))
                told = time.perf_counter()
        self.engine.flush()
        return self._chosen(totals.metrics())

    def evaluate(self, source: Any, batch_size: int) -> dict[str, float]:
        """Mean loss, and accuracy where there is one; nothing is updated."""
        if isinstance(source, Loader) and source.computable:
            arrays = source.arrays
            fields = source.fields(in_order=True) if arrays is None else arrays
            return self._chosen(
                self.engine.evaluate(fields, batch_size, rank=source.rank, world_size=source.world_size)
            )
        means: dict[str, Mean] = {}
        for number, batch in enumerate(batches_of(source)):
            x, y = x_and_y(batch)
            for name, value in self.engine.evaluate((x, y), batch_size, first_batch=number).items():
                means.setdefault(name, Mean()).add(value, _rows(x))
        return self._chosen({name: mean.value for name, mean in means.items()})

    def predict(self, x: Any, batch_size: int) -> NDArray[Any]:
        return self.engine.predict(x, batch_size)

    def counters(self) -> dict[str, int]:
        """What a checkpoint must hold beside the arrays."""
        return {"step": self.engine.step_count, "draw": self.engine.draw_count, "fresh": self.engine.fresh}

    def restore(self, counters: Mapping[str, int]) -> None:
        """Take over what ``counters`` gave."""
        self.engine.forget()
        self.engine.step_count, self.engine.draw_count = counters["step"], counters["draw"]
        self.engine.fresh = counters["fresh"]
        self.engine.seed = counters["seed"]

    def timings(self) -> dict[str, float]:
        return self.engine.timings()

    def plan(self) -> Any:
        return self.engine.plan()

    def _chosen(self, metrics: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if self._accuracy or name != "accuracy"}

    def _metrics(self, made: EpochResult | NativeReport) -> dict[str, float]:
        accuracy = {} if made.accuracy is None else {"accuracy": made.accuracy}
        return self._chosen({"loss": made.loss, **accuracy})


class _Totals:
    """The metrics of steps that are taken one by one, from the engine's own totals."""

    _keys = ("loss_sum", "loss_weight", "correct", "samples")

    def __init__(self, engine: Engine) -> None:
        self._engine, self._sums = engine, dict.fromkeys(self._keys, 0.0)
        self._before: dict[str, float] = {}

    def begin(self) -> None:
        self._before = self._engine.totals()

    def end(self) -> None:
        after = self._engine.totals()
        for key in self._keys:
            self._sums[key] += after[key] - self._before[key]

    def metrics(self) -> dict[str, float]:
        weight, samples = self._sums["loss_weight"], self._sums["samples"]
        metrics = {"loss": self._sums["loss_sum"] / weight if weight else float("nan")}
        if samples and self._engine.loss != "mse":
            metrics["accuracy"] = self._sums["correct"] / samples
        return metrics


def _rows(x: Any) -> int:
    return int(x.shape[0]) if hasattr(x, "shape") else len(x)
