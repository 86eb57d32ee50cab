"""Makes the session behind ``Trainer(model)``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gradring.losses import Function, Loss, as_loss
from gradring.metrics import Accuracy, Metrics
from gradring.nn.layer import Layer
from gradring.options import Options
from gradring.session.session import Session

__all__ = ["model_session"]


def model_session(
    model: Layer, *, loss: str | Loss, metrics: Metrics, said: bool, seed: int | None, options: Options, **others: Any
) -> Session:
    """The session of a model. ``said`` says that the user has given the metrics."""
    if seed is not None and getattr(getattr(model, "_store", None), "trained", False):
        raise ValueError(
            f"[Trainer] seed={seed} decides initial parameters, but a trainer has updated this model's already: "
            "leave seed out to train them further, or call reset(seed) on the new trainer for fresh ones"
        )
    checked = as_loss("Trainer", loss)
    chosen = _counted_by(checked, metrics) if said else metrics
    return Session(model, loss=checked, metrics=chosen, **others, **asdict(options))


def _counted_by(loss: Loss, metrics: Metrics) -> Metrics:
    """The metrics that were asked for, where the loss cannot count the right answers for the accuracy."""
    if not metrics.accuracy or loss.counts_right:
        return metrics
    if isinstance(loss, Function):  # it may be a loss of classes
        return Metrics(False, {"accuracy": Accuracy(), **metrics.functions})
    raise ValueError(
        f"[Trainer] metrics: accuracy is of classes, and the loss {loss.kind} is of numbers: leave it out, or give 'mae', 'r2' "
        "or a function of predictions and targets"
    )
