"""What a callback is, and what it sees of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradring.history import History
    from gradring.trainer import Trainer

__all__ = ["Callback", "Run"]


@dataclass
class Run:
    """A call of ``Trainer.fit``, as callbacks see it.

    Epochs are counted over the trainer's life: this run began with ``first_epoch`` (0 if it was resumed), is in
    ``epoch`` and ends before ``last_epoch``. ``batch`` of ``batches`` are done in it; ``batches`` is None where the
    ``source``, which batches come from, cannot tell. ``metrics`` holds the running means of the epoch, and at its end
    its row of the history. A callback ends the run after the current epoch by setting ``stop`` to a reason.
    """

    trainer: Trainer
    history: History
    first_epoch: int
    last_epoch: int
    batches: int | None
    epoch: int = 0
    batch: int = 0
    source: Any = None
    metrics: dict[str, float] = field(default_factory=dict)
    stop: str = ""


class Callback:
    """Override what you need. Each is called in the thread that called ``fit``, between two training steps."""

    def on_fit_start(self, run: Run) -> None:
        """Before the first step."""

    def on_report(self, run: Run) -> None:
        """About every 100 ms."""

    def on_epoch_end(self, run: Run) -> None:
        """After each epoch and its validation."""

    def on_fit_end(self, run: Run) -> None:
        """After the last epoch, and also when the run ends by an exception."""
