"""Epochs over the native engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from gradring.epochs import REPORT_SECONDS, EpochPlace, Mean, Report, batches_of
from gradring.loader import Loader

if TYPE_CHECKING:
    from gradring.graph import Engine, EpochResult
    from gradring.graph.results import Report as NativeReport

__all__ = ["NativeRun"]


class NativeRun(EpochPlace):
    """Runs whole epochs natively over a loader's arrays, and other sources batch by batch."""

    def __init__(self, engine: Engine, *, accuracy: bool) -> None:
        self.engine, self._accuracy = engine, accuracy
        self.params: dict[str, NDArray[Any]] = engine.params
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

    def _passes(self) -> tuple[int, int]:
        return self.engine.draw_count, self.engine.pending

    def train(self, source: Any, epoch: int, start: int, report: Report) -> dict[str, float]:
        """An epoch from batch ``start`` on. An incomplete group of accumulated batches is applied at its end."""
        self.engine.forget()
        self.begin(start)
        try:
            if not isinstance(source, Loader):
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
                on_report=lambda made: self.tell(report, start + made.steps, self._metrics(made)),
            )
            return self._metrics(result)
        except BaseException:
            self.engine.forget()  # they will be drawn again, with the same dropout
            raise

    def _train_batches(self, source: Any, epoch: int, start: int, report: Report) -> dict[str, float]:
        mean, done, told = Mean(), start, time.perf_counter()
        for x, y in batches_of(source, epoch, start):
            mean.add(self.engine.step(x, y), len(x))
            done += 1
            if time.perf_counter() - told > REPORT_SECONDS:
                self.tell(report, done, {"loss": mean.value})
                told = time.perf_counter()
        self.engine.flush()
        return {"loss": mean.value}

    def evaluate(self, source: Any, batch_size: int) -> dict[str, float]:
        """Mean loss, and accuracy where there is one; nothing is updated."""
        if isinstance(source, Loader):
            arrays = source.arrays
            return self._chosen(
                self.engine.evaluate(source.fields(in_order=True) if arrays is None else arrays, batch_size)
            )
        means: dict[str, Mean] = {}
        for number, (x, y) in enumerate(batches_of(source)):
            for name, value in self.engine.evaluate((x, y), batch_size, first_batch=number).items():
                means.setdefault(name, Mean()).add(value, len(x))
        return self._chosen({name: mean.value for name, mean in means.items()})

    def predict(self, x: Any, batch_size: int) -> NDArray[Any]:
        return self.engine.predict(x, batch_size)

    def counters(self) -> dict[str, int]:
        """What a checkpoint must hold beside the arrays."""
        return {"step": self.engine.step_count, "draw": self.engine.draw_count}

    def restore(self, counters: Mapping[str, int]) -> None:
        """Take over what ``counters`` gave."""
        self.engine.forget()
        self.engine.step_count, self.engine.draw_count = counters["step"], counters["draw"]
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
