"""The counts of a session, which its native engine keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradring import devices
from gradring.options import FIRST_SCALE
from gradring.session.ahead import Ahead
from gradring.session.base import BaseSession
from gradring.session.measured import EpochSums
from gradring.session.rates import AHEAD

__all__ = ["CountedSession"]


class CountedSession(BaseSession):
    """A session whose native engine counts what training does."""

    _native: Any
    device: str
    _tunes: bool
    _recorded: bool  # the algorithms of products belong into checkpoints
    operands: str | None  # the dtype of 16 bits that products read, if they do
    _ahead: Ahead | None = None  # steps on a CUDA device, which return before it is done

    def settle(self) -> None:
        if self._ahead is not None:
            self._ahead.settle()

    def _drop_steps(self) -> None:
        if self._ahead is not None:
            self._ahead.drop()

    @property
    def threads(self) -> int:
        """The most threads that a step may use."""
        lanes: int = self._native.lanes
        return lanes

    # Counts, which the native engine keeps; all are part of a checkpoint.

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
        """The seed of dropout's random numbers, which also depend on ``draw_count``."""
        seed: int = self._native.seed
        return seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._native.seed = value

    @property
    def draw_count(self) -> int:
        """Training passes so far; each has other random numbers for dropout."""
        draws: int = self._native.draws
        return draws

    @draw_count.setter
    def draw_count(self, value: int) -> None:
        self._native.draws = value

    @property
    def fresh(self) -> int:
        """Updates that were done when the optimizer's state began at zero."""
        fresh: int = self._native.fresh
        return fresh

    @fresh.setter
    def fresh(self, value: int) -> None:
        self._native.fresh = value

    @property
    def _scales(self) -> bool:
        """Whether the loss is multiplied by a scale."""
        return self.operands == "float16"

    @property
    def loss_scale(self) -> float:
        return float(self._native.loss_scale) if self._scales else 1.0

    @property
    def _rates_ahead(self) -> int:
        """For how many updates the rates are given ahead. The host does not know which steps a device skips, and a step that
        is skipped leaves its rate to the next one."""
        return 1 if self._scales and self._ahead is not None and self.rates.constant is None else AHEAD

    def _scaling(self) -> dict[str, int]:
        """The counts of the loss's scale, which is a power of two."""
        return {"loss_scale": int(self.loss_scale), "good_steps": self._native.good_steps} if self._scales else {}

    def _begin_scaling(self, counts: Mapping[str, int]) -> None:
        """Go on from what ``_scaling`` gave; a training without a scale gave nothing."""
        if self._scales:
            self._native.loss_scale = counts.get("loss_scale") or FIRST_SCALE
            self._native.good_steps = counts.get("good_steps", 0)

    @property
    def waiting_form(self) -> str:
        return "scaled sum" if self._scales else "sum"

    @property
    def pending(self) -> int:
        """Batches whose gradients wait for the rest of their group (``accumulate``)."""
        pending: int = self._native.pending
        return pending

    @property
    def sums(self) -> EpochSums:
        """Sums over the training batches since they were last set."""
        sums: EpochSums = self._native.sums
        return sums

    @sums.setter
    def sums(self, sums: EpochSums) -> None:
        self._native.sums = sums

    def totals(self) -> dict[str, float]:
        """Native sums over the training so far: of losses, their weights, samples, right answers, seconds."""
        totals: dict[str, float] = self._native.totals()
        return totals

    def timings(self) -> dict[str, float]:
        """Seconds in training so far by phase: data (waiting and gathering), compute, update."""
        totals = self._native.totals()
        return {key: totals[f"{key}_seconds"] for key in ("data", "compute", "reduction", "update")}

    # The algorithms of matrix products on a device

    def algorithms(self) -> str:
        return self._native.algorithms() if self._recorded else ""

    def reads_algorithms(self, text: str) -> bool:
        return self.device == devices.CPU or bool(self._native.reads_algorithms(text))

    def take_algorithms(self, text: str) -> bool:
        if self.device == devices.CPU:
            return True
        taken = self._native.restore_algorithms(text) if text else None
        if taken is True:
            self._recorded = True
        elif self._recorded and not self._tunes:  # an earlier record says nothing about this training
            self._native.forget_algorithms()
            self._recorded = False
        return taken is not False
