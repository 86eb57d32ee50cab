"""Whole epochs of a small data set: several of them in one native call, because Python takes as long as ten steps for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SECONDS", "WholeEpochs"]

SECONDS = 0.02  # about how long one native call takes. Signals and other threads wait for its end
_LOSS, _WEIGHT, _CORRECT, _SAMPLES, _SECONDS, _STEPS = range(6)


class WholeEpochs:
    """Epochs from number ``first`` on, which one native call trains, and what it has found. The first has begun with the batch
    ``begun``.

    The call may end early, or an exception may follow it at once. ``done`` counts the epochs that are complete then.
    """

    def __init__(self, first: int, most: int, begun: int) -> None:
        self.first, self.begun = first, begun
        self.found: NDArray[np.float64] = np.zeros((most, 6))

    @property
    def done(self) -> int:
        """How many epochs are complete: the call writes a row when its epoch has ended."""
        return int(np.count_nonzero(self.found[:, _STEPS]))

    @property
    def steps(self) -> int:
        """The steps of the complete epochs."""
        return int(self.found[:, _STEPS].sum())

    def rows(
        self, metrics_of: Callable[[Mapping[str, float]], dict[str, float]]
    ) -> list[tuple[dict[str, float], float]]:
        """The metrics and the seconds of each complete epoch; ``metrics_of`` makes metrics of an epoch's sums."""
        rows = []
        for row in self.found[: self.done].tolist():
            sums = {
                "loss_sum": row[_LOSS],
                "loss_weight": row[_WEIGHT],
                "correct": int(row[_CORRECT]),
                "samples": int(row[_SAMPLES]),
            }
            rows.append((metrics_of(sums), row[_SECONDS]))
        return rows

    def train(self, native: Any, feed: Any, rates: Any) -> dict[str, Any]:
        """Train; returns how the call ended."""
        result: dict[str, Any] = native.epochs(feed, rates, self.first, self.found)
        return result
