"""Objects whose methods ``Trainer.fit`` calls between its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring.callbacks.base import Callback, Run
from gradring.callbacks.checkpoint import Checkpoint
from gradring.callbacks.csv import Csv
from gradring.callbacks.early_stop import EarlyStop
from gradring.callbacks.progress import Progress
from gradring.callbacks.reduce_rate import ReduceLROnPlateau
from gradring.callbacks.tensorboard import TensorBoard
from gradring.callbacks.trace import Trace
from gradring.planned import getter

__all__ = ["Callback", "Checkpoint", "Csv", "EarlyStop", "Progress", "ReduceLROnPlateau", "Run", "TensorBoard", "Trace"]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.callbacks")
