"""Checks whether replicas can train a model."""

from __future__ import annotations

from gradring import losses
from gradring.errors import NotBuilt
from gradring.nn.function import Function
from gradring.nn.layer import Layer
from gradring.optim import Optimizer

__all__ = ["require_asynchronous", "require_replicable"]


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


def require_asynchronous(parallel: str, optimizer: Optimizer, accumulate: int) -> None:
    """Raise ``ValueError`` if asynchronous updates of this kind cannot apply the optimizer, and ``NotBuilt`` if they would have
    to accumulate gradients."""
    kept = [rule for rule in optimizer.rules if rule.state_names]
    if parallel != "locked" and kept:
        raise ValueError(
            f"[Trainer] parallel={parallel!r} updates one number at a time, and {kept[0]} keeps a state beside each parameter: "
            "give gr.optim.SGD without momentum, or parallel='locked', which takes every optimizer"
        )
    if accumulate > 1:
        raise NotBuilt(
            f"accumulate={accumulate} with parallel={parallel!r} is planned; this version pushes after each batch: give larger "
            "batches"
        )
