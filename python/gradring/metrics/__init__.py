"""Metrics, for ``Trainer(metrics=[...])``: the ones here, and any ``callable(predictions, targets) -> float``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring.metrics.accuracy import Accuracy
from gradring.metrics.base import Metric
from gradring.metrics.mae import MAE
from gradring.metrics.named import NAMES, Metrics, as_metrics
from gradring.metrics.r2 import R2
from gradring.metrics.top_k import TopK
from gradring.planned import getter

__all__ = ["MAE", "NAMES", "R2", "Accuracy", "Metric", "Metrics", "TopK", "as_metrics"]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.metrics")
