"""The reports of a session about an epoch, while it runs and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.losses import Loss
from gradring.metrics import Metrics

__all__ = ["EpochResult", "Predicted", "Report", "Sums", "Totals"]


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
    """The result of an epoch. ``seconds`` has the keys data, compute, update and total."""

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
    the samples lie in batches."""

    def __init__(self, loss: Loss) -> None:
        self.values: dict[str, float] = {}
        self._classified, self._summed = loss.counts_right, getattr(loss, "reduction", "mean") == "sum"

    def add(self, more: Mapping[str, float]) -> None:
        """Add the totals of another chunk."""
        if not self.values:
            self.values = dict(more)
            return
        for key, value in more.items():
            self.values[key] = self.values.get(key, 0) + value

    def loss(self) -> float:
        """The mean loss, or the sum of all if that is what the loss is."""
        if self._summed and self.values:
            return self.values["loss_sum"]
        weight = self.values.get("loss_weight", 0)
        return self.values["loss_sum"] / weight if weight else float("nan")

    def require_weight(self, weighted: bool) -> None:
        """``ValueError`` if all samples that were read have the weight zero."""
        if weighted and self.values.get("samples") and not self.values.get("loss_weight"):
            raise ValueError(
                f"[Trainer] weight: all {self.count('samples')} weights are zero, so there is nothing to "
                "learn: leave weight out"
            )

    def accuracy(self) -> float | None:
        """The share of right answers, if they are counted."""
        samples = self.values.get("samples", 0)
        return self.values["correct"] / samples if self._classified and samples else None

    def count(self, key: str) -> int:
        """A total that is a whole number."""
        return int(self.values.get(key, 0))

    def metrics(self) -> dict[str, float]:
        """The means by name."""
        return _metrics(self.loss(), self.accuracy())

    def report(self, rates: Any, updates: int, seconds: float) -> Report:
        """The means so far; ``updates`` of the last chunk had ``rates``."""
        rate = float(np.ravel(rates[max(updates - 1, 0)])[0])  # the optimizer's own comes before those of groups
        return Report(self.count("steps"), self.count("samples"), self.loss(), self.accuracy(), rate, seconds)

    def result(self, total: float) -> EpochResult:
        """The epoch's result; it took ``total`` seconds."""
        seconds = {key: self.values.get(f"{key}_seconds", 0.0) for key in ("data", "compute", "update")}
        seconds["total"] = total
        return EpochResult(self.loss(), self.accuracy(), self.count("samples"), self.count("steps"), seconds)


class Totals:
    """The metrics of steps that are taken one by one, from the session's own totals, which ``read`` gives."""

    _keys = ("loss_sum", "loss_weight", "correct", "samples")

    def __init__(self, read: Callable[[], Mapping[str, float]], loss: Loss) -> None:
        self._read, self._sums = read, Sums(loss)
        self._sums.add(dict.fromkeys(self._keys, 0.0))
        self._before: Mapping[str, float] = {}

    def begin(self) -> None:
        """A step begins."""
        self._before = self._read()

    def end(self) -> None:
        """The step has ended."""
        after = self._read()
        self._sums.add({key: after[key] - self._before[key] for key in self._keys})

    def require_weight(self, weighted: bool) -> None:
        """``ValueError`` if all samples that were read have the weight zero."""
        self._sums.require_weight(weighted)

    def metrics(self) -> dict[str, float]:
        """The means by name."""
        return self._sums.metrics()


class Predicted:
    """An epoch's predictions and targets, for metrics that need them all; nothing is kept for those that do not.

    Each batch is predicted with the parameters that it meets, without dropout.
    """

    def __init__(self, metrics: Metrics, forward: Callable[..., NDArray[Any]]) -> None:
        self._metrics, self._forward = metrics, forward
        self._predictions: list[NDArray[Any]] = []
        self._targets: list[NDArray[Any]] = []

    def add(self, fields: Sequence[Any]) -> None:
        """Add the next batch, given as the model's inputs and the targets."""
        if self._metrics.functions:
            *inputs, targets = fields
            self._predictions.append(self._forward(*inputs))
            self._targets.append(np.array(targets))  # a copy, because a loader fills the memory of a batch again

    def metrics(self) -> dict[str, float]:
        """The metrics by name; NaN where there was no batch."""
        if not self._predictions:
            return dict.fromkeys(self._metrics.functions, float("nan"))
        return self._metrics.of(np.concatenate(self._predictions), np.concatenate(self._targets))
