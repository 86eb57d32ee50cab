"""What an engine tells of an epoch, while it runs and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EpochResult", "Report", "Sums"]


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


class Sums:
    """Totals of several native chunks; ``classified`` says whether right answers are counted."""

    def __init__(self, classified: bool) -> None:
        self.values: dict[str, float] = {}
        self._classified = classified

    def add(self, more: Mapping[str, float]) -> None:
        for key, value in more.items():
            self.values[key] = self.values.get(key, 0) + value

    def loss(self) -> float:
        weight = self.values.get("loss_weight", 0)
        return self.values["loss_sum"] / weight if weight else float("nan")

    def accuracy(self) -> float | None:
        samples = self.values.get("samples", 0)
        return self.values["correct"] / samples if self._classified and samples else None

    def count(self, key: str) -> int:
        return int(self.values.get(key, 0))
