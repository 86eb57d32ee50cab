"""The words that arguments accept, as types, so that a type checker finds a wrong one."""

from __future__ import annotations

from typing import Literal

__all__ = [
    "Activation",
    "Approximate",
    "MetricName",
    "Nonfinite",
    "OnError",
    "OptimizerName",
    "Parallel",
    "Products",
    "Reduction",
]

Activation = Literal["relu", "gelu", "silu", "tanh", "sigmoid"]
Approximate = Literal["tanh", "none"]
MetricName = Literal["accuracy", "mae", "r2"]
Nonfinite = Literal["raise", "ignore"]
OnError = Literal["raise", "skip"]
OptimizerName = Literal["adamw", "adam", "sgd", "rmsprop", "lion"]
Parallel = Literal["allreduce", "locked", "atomic", "hogwild"]
Products = Literal["fma", "pieces3", "pieces2"]
Reduction = Literal["sample", "mean", "sum"]
