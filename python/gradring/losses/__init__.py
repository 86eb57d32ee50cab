"""Losses as objects, for ``Trainer(loss=...)``; the strings ``"cross_entropy"``, ``"mse"``, ``"binary_cross_entropy"``,
``"mae"`` and ``"huber"`` name those without options."""

from __future__ import annotations

from gradring.losses.base import ClassWeight, Loss
from gradring.losses.binary_cross_entropy import BinaryCrossEntropy
from gradring.losses.cross_entropy import CrossEntropy
from gradring.losses.function import Function
from gradring.losses.named import NAMES, as_loss
from gradring.losses.regression import MAE, MSE, Huber

__all__ = [
    "MAE",
    "MSE",
    "NAMES",
    "BinaryCrossEntropy",
    "ClassWeight",
    "CrossEntropy",
    "Function",
    "Huber",
    "Loss",
    "as_loss",
]
