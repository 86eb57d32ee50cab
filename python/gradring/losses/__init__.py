"""Losses as objects, for ``Trainer(loss=...)``; the strings ``"cross_entropy"``, ``"mse"`` and ``"binary_cross_entropy"``
name those without options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring.losses.base import Loss
from gradring.losses.binary_cross_entropy import BinaryCrossEntropy
from gradring.losses.cross_entropy import CrossEntropy
from gradring.losses.mse import MSE
from gradring.losses.named import NAMES, as_loss
from gradring.planned import getter

__all__ = ["MSE", "NAMES", "BinaryCrossEntropy", "CrossEntropy", "Loss", "as_loss"]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.losses")
