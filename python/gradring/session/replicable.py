"""Checks whether replicas can train a model."""

from __future__ import annotations

from gradring import losses
from gradring.errors import NotBuilt
from gradring.nn.function import Function
from gradring.nn.layer import Layer

__all__ = ["require_replicable"]


def require_replicable(model: Layer, loss: losses.Loss) -> None:
    """Raise ``NotBuilt`` if the model or the loss has parts that replicas cannot train yet."""
    if model.named_buffers():
        names = ", ".join(model.named_buffers())
        raise NotBuilt(
            f"replicas of a model with running statistics ({names}) are planned; this version trains it with replicas=1"
        )
    if any(isinstance(layer, Function) for _, layer in model.walk()) or isinstance(loss, losses.Function):
        raise NotBuilt(
            "replicas of a model with functions in Python are planned: they would run one at a time, and must bear to be "
            "called from several threads; this version trains it with replicas=1"
        )
