"""Losses by name."""

from __future__ import annotations

from typing import Any

from gradring.arguments import choice
from gradring.losses.base import Loss
from gradring.losses.binary_cross_entropy import BinaryCrossEntropy
from gradring.losses.cross_entropy import CrossEntropy
from gradring.losses.regression import MAE, MSE, Huber

__all__ = ["NAMES", "as_loss"]

_LOSSES = (CrossEntropy, MSE, BinaryCrossEntropy, MAE, Huber)
NAMES = tuple(loss.kind for loss in _LOSSES)


def as_loss(where: str, loss: Any) -> Loss:
    """A loss, given as an object or by its name. Anything else raises an error whose message begins with ``where``.

    >>> as_loss("Trainer", "mse")
    MSE(reduction='mean')
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        raise TypeError(f"[{where}] loss is the class {loss.__name__}: did you forget the brackets?")
    name = choice(where, "loss", loss, NAMES, "or one of gr.losses")
    return next(known() for known in _LOSSES if known.kind == name)
