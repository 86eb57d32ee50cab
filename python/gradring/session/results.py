"""The reports of a session about an epoch, while it runs and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.losses import Loss
from gradring.metrics import Metrics
from gradring.session.measured import EpochSums, Measured

__all__ = ["EpochResult", "Predicted", "Report", "Sums"]


def _metrics(loss: float, accuracy: float | None) -> dict[str, float]:
    return {"loss": loss} if accuracy is None else {"loss": loss, "accuracy": accuracy}


@dataclass(slots=True)
class Report:
    """The progress of a running epoch. Its means are over the samples so far."""

    steps: int
    samples: int
    loss: float
    accuracy: float | None
    learning_rate: float
    seconds: float

    def metrics(self) -> dict[str, float]:
        """The means by name."""
        return _metrics(self.loss, self.accuracy)


@dataclass(slots=True)
class EpochResult:
    """The result of an epoch. ``seconds`` has the keys data, compute, reduction, update and total."""

    loss: float
    accuracy: float | None
    samples: int
    steps: int
    seconds: Mapping[str, float]

    def metrics(self) -> dict[str, float]:
        """The means by name."""
        return _metrics(self.loss, self.accuracy)


class Sums:
    """Totals of several native chunks: of the weighted losses and of the weights, so that their quotient is exact however
    the samples lie in batches. Native code adds these two batch by batch, so that their bits do not depend on where a
    chunk ends."""

    def __init__(self, loss: Loss) -> None:
        self.values: dict[str, float] = {}
        self._classified, self._summed = loss.counts_right, loss.summed

    def add(self, more: Mapping[str, float]) -> None:
        """Add the totals of another chunk, whose losses and weights are those of all chunks so far."""
        if not self.values:
            self.values = dict(more)
            return
        for key, value in more.items():
            so_far = key in ("loss_sum", "loss_weight")
            self.values[key] = value if so_far else self.values.get(key, 0) + value

    def take(self, sums: EpochSums) -> None:
        """Replace the sums of losses, weights, right answers and samples by these."""
        self.values |= zip(("loss_sum", "loss_weight", "correct", "samples"), sums, strict=False)

    @property
    def so_far(self) -> tuple[float, float]:
        """The sum of the weighted losses, and that of the weights."""
        return self.values.get("loss_sum", 0.0), self.values.get("loss_weight", 0.0)

    def loss(self) -> float:
        """The mean loss, or the sum of all if that is what the loss is."""
        if self._summed and self.values:
            return self.values["loss_sum"]
        weight = self.values.get("loss_weight", 0)
        return self.values["loss_sum"] / weight if weight else float("nan")

    def require_weight(self, weighted: bool) -> None:
        """``ValueError`` if all samples that were read have the weight zero: their own, or that of their class."""
        if not self.values.get("samples") or self.values.get("loss_weight"):
            return
        if weighted:
            raise ValueError(
                f"[Trainer] weight: all {self.count('samples')} weights are zero, so there is nothing to "
                "learn: leave weight out"
            )
        if not self._summed:
            raise ValueError(
                f"[Trainer] class_weight: all {self.count('samples')} samples are of classes whose weight is zero, so there is "
                "nothing to learn or to measure: give one of these classes a weight above zero"
            )

    def accuracy(self) -> float | None:
        """The share of right answers, if the loss counts them."""
        samples = self.values.get("samples", 0)
        return self.values["correct"] / samples if self._classified and samples else None

    def count(self, key: str) -> int:
        """A total that is a whole number."""
        return int(self.values.get(key, 0))

    def metrics(self) -> dict[str, float]:
        """The means by name."""
        return _metrics(self.loss(), self.accuracy())

    def report(self, rates: Any, updates: int, seconds: float) -> Report:
        """The means so far. ``updates`` is the number of updates of the last chunk, and ``rates`` are theirs."""
        rate = float(np.ravel(rates[max(updates - 1, 0)])[0])  # the optimizer's own comes before those of groups
        return Report(self.count("steps"), self.count("samples"), self.loss(), self.accuracy(), rate, seconds)

    def result(self, total: float) -> EpochResult:
        """The epoch's result; it took ``total`` seconds."""
        seconds = {key: self.values.get(f"{key}_seconds", 0.0) for key in ("data", "compute", "reduction", "update")}
        seconds["total"] = total
        return EpochResult(self.loss(), self.accuracy(), self.count("samples"), self.count("steps"), seconds)


class Predicted:
    """An epoch's predictions and targets, for metrics that need them all; nothing is kept for those that do not.

    Each batch is predicted with the parameters before its update, without dropout.
    """

    def __init__(
        self,
        metrics: Metrics,
        forward: Callable[..., NDArray[Any]],
        before: Measured | None = None,
        join: Callable[[Sequence[NDArray[Any] | None]], NDArray[Any] | None] | None = None,
    ) -> None:
        self._metrics, self._forward, self._join = metrics, forward, join
        self._predictions: list[NDArray[Any] | None] = []  # None: a batch of which this rank has no rows
        self._targets: list[NDArray[Any] | None] = []
        self._before = 0  # entries of the lists that are of the epoch's batches before this run
        if before is not None and metrics.functions:
            self._predictions, self._targets = list(before.predictions), list(before.targets)
            self._before = len(self._predictions)

    def add(self, fields: Sequence[Any] | None, ends: Sequence[int] = ()) -> None:
        """Add the next batch, given as the model's inputs and the targets; None if this rank has no rows of it. The rows up to
        each of ``ends`` are predicted apart: the bits of a prediction may depend on how many rows are predicted together."""
        if self._metrics.functions:
            if fields is None:
                self._predictions.append(None)
                self._targets.append(None)
                return
            *inputs, targets = fields
            begins = (0, *ends[:-1])
            parts = [[x[a:b] for x in inputs] for a, b in zip(begins, ends, strict=True) if b > a] if ends else [inputs]
            predictions = np.concatenate([self._forward(*part) for part in parts])
            targets = np.array(targets)  # a copy, because a loader fills the memory of a batch again
            if self._before and len(self._predictions) == self._before:
                self._require_alike(predictions, targets)
            self._targets.append(targets)
            self._predictions.append(predictions)

    def _require_alike(self, predictions: NDArray[Any], targets: NDArray[Any]) -> None:
        before, now = (self._predictions[0], self._targets[0]), (predictions, targets)
        assert before[0] is not None and before[1] is not None  # a file has no batch without rows
        if any(a is None or a.shape[1:] != b.shape[1:] for a, b in zip(before, now, strict=True)):
            raise ValueError(
                f"[Trainer.fit] resume: the epoch had predictions {before[0].shape[1:]} and targets {before[1].shape[1:]} for "
                f"each sample, and now has {now[0].shape[1:]} and {now[1].shape[1:]}: resume on the same data"
            )

    def first(self, batches: int) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        """The predictions and targets of the epoch's batches before this run, and of ``batches`` batches of this
        run."""
        count = self._before + batches
        return tuple(present(self._predictions[:count])), tuple(present(self._targets[:count]))

    def metrics(self, where: str) -> dict[str, float]:
        """The metrics by name; NaN where there was no batch. ``where`` says for an error what they are of."""
        if not self._metrics.functions:
            return {}
        predictions, targets = (self._joined(parts) for parts in (self._predictions, self._targets))
        if predictions is None or targets is None:
            return dict.fromkeys(self._metrics.functions, float("nan"))
        return self._metrics.of(predictions, targets, where)

    def _joined(self, parts: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        if self._join is not None:
            return self._join(parts)
        own = present(parts)
        return np.concatenate(own) if own else None


def present(parts: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
    """The parts that are there."""
    return [part for part in parts if part is not None]
