"""Losses by name."""

from __future__ import annotations

from typing import Any

from gradring.arguments import choice
from gradring.losses.base import Loss, by_name

__all__ = ["as_loss"]


def as_loss(where: str, loss: Any) -> Loss:
    """A loss, given as an object or by its name. Anything else raises an error whose message begins with ``where``.

    >>> as_loss("Trainer", "mse")
    MSE(reduction='mean')
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        raise TypeError(f"[{where}] loss is the class {loss.__name__}: did you forget the brackets?")
    known = by_name()
    return known[choice(where, "loss", loss, tuple(known), "or one of gr.losses")]()
