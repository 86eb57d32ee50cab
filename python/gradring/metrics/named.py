"""Metrics by name, and what a trainer's ``metrics=`` asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from gradring.errors import GradringError
from gradring.metrics.accuracy import Accuracy
from gradring.metrics.base import Metric
from gradring.metrics.mae import MAE
from gradring.metrics.r2 import R2

__all__ = ["NAMES", "Metrics", "as_metrics"]

Function = Callable[[NDArray[Any], NDArray[Any]], float]
_NAMED: dict[str, Callable[[], Metric]] = {"accuracy": Accuracy, "mae": MAE, "r2": R2}
NAMES = tuple(_NAMED)
_TAKEN = ("epoch", "loss", "lr", "seconds")


@dataclass(frozen=True)
class Metrics:
    """The metrics of an epoch: ``accuracy``, which the loss counts natively, and functions of all predictions, by
    name."""

    accuracy: bool = True
    functions: dict[str, Function] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names."""
        return (*(("accuracy",) if self.accuracy else ()), *self.functions)

    def of(self, predictions: NDArray[Any], targets: NDArray[Any], where: str = "an epoch") -> dict[str, float]:
        """The functions' values. If a function raises, the exception names it."""
        values: dict[str, float] = {}
        for name, function in self.functions.items():
            try:
                value = function(predictions, targets)
            except Exception as error:
                if isinstance(function, Metric):
                    raise  # it names itself
                raise GradringError(
                    f"[Trainer] metric {name!r} raised {type(error).__name__} for {where}: {error}; predictions were "
                    f"{predictions.shape} of {predictions.dtype}, targets {targets.shape} of {targets.dtype}"
                ) from error
            try:
                values[name] = float(value)
            except (TypeError, ValueError):
                raise TypeError(
                    f"[Trainer] metric {name!r} returned {type(value).__name__}: must be a number over all samples"
                ) from None
        return values


def as_metrics(where: str, given: Any) -> Metrics:
    """Metrics from names, objects and functions; ``TypeError`` or ``ValueError`` for anything else.

    >>> as_metrics("Trainer", ["accuracy", "mae"]).functions
    {'mae': MAE()}
    """
    known = ", ".join(map(repr, NAMES))
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f"[{where}] metrics must be a list of {known}, gr.metrics or functions, got {given!r}")
    accuracy, functions = False, dict[str, Function]()
    for metric in given:
        if isinstance(metric, str) and metric not in _NAMED:
            raise ValueError(f"[{where}] metrics must be of {known}, gr.metrics or functions, got {metric!r}")
        made: Any = _NAMED[metric]() if isinstance(metric, str) else metric
        if isinstance(made, type) and issubclass(made, Metric):
            raise TypeError(f"[{where}] metrics: {made.__name__} is a class: did you forget the brackets?")
        if not callable(made):
            raise TypeError(f"[{where}] metrics: {type(made).__name__} is not callable with (predictions, targets)")
        if isinstance(made, Accuracy):
            accuracy = True
            continue
        name = str(getattr(made, "name", None) or getattr(made, "__name__", type(made).__name__)).strip("<>")
        if name in functions or name in _TAKEN or name == "accuracy" or name.startswith("val_"):
            raise ValueError(
                f"[{where}] metrics: the name {name!r} is taken; give the function another __name__ or name"
            )
        functions[name] = made
    return Metrics(accuracy, functions)
