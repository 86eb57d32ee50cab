"""Optimizers, as small immutable descriptions, and learning-rate schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring.optim import schedule
from gradring.optim.adam import Adam, AdamW
from gradring.optim.base import Optimizer
from gradring.optim.lion import Lion
from gradring.optim.rmsprop import RMSprop
from gradring.optim.sgd import SGD
from gradring.planned import getter

__all__ = ["SGD", "Adam", "AdamW", "Lion", "Optimizer", "RMSprop", "schedule"]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.optim")
