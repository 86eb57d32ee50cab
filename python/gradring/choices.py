"""The words that arguments accept, as types, so that a type checker finds a wrong one."""

from __future__ import annotations

from typing import Literal

__all__ = ["LossName", "MetricName", "Nonfinite", "OnError", "Parallel"]

LossName = Literal["cross_entropy", "mse", "binary_cross_entropy", "mae", "huber"]
MetricName = Literal["accuracy", "mae", "r2"]
Nonfinite = Literal["raise", "ignore"]
OnError = Literal["raise", "skip"]
Parallel = Literal["allreduce"]  # the only choice so far
