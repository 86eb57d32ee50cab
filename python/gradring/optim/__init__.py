"""Optimizers, as small immutable descriptions, and learning-rate schedules."""

from gradring.optim import schedule
from gradring.optim.adam import Adam, AdamW
from gradring.optim.base import Optimizer
from gradring.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "schedule"]
