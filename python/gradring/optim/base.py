"""What every optimizer is: a small immutable description. The arithmetic is native, in ``csrc/ops``."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import real
from gradring.optim.schedule import Schedule, as_schedule

__all__ = ["Optimizer", "require_optimizer"]


@dataclass(frozen=True)
class Optimizer:
    """A rule for updating parameters, as data: ``kind`` names it and the fields are its hyperparameters.

    ``lr`` is a float or a schedule. ``state_names`` lists the arrays, of a parameter's shape, that the rule keeps for
    each parameter; all begin at zero.
    """

    lr: float | Schedule

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        as_schedule(self.lr, type(self).__name__, "lr")

    @property
    def state_names(self) -> tuple[str, ...]:
        return ()

    def learning_rates(self, first: int, count: int) -> NDArray[np.float64]:
        """The learning rates of ``count`` consecutive updates, the first of which is update number ``first`` from 0.

        >>> from gradring.optim import SGD, schedule
        >>> SGD(schedule.linear(1.0, 0.0, steps=4)).learning_rates(0, 3)
        array([1.  , 0.75, 0.5 ])
        """
        return as_schedule(self.lr).range(first, count)

    def learning_rate(self, update: int) -> float:
        """The learning rate of one update, counted from 0.

        >>> from gradring.optim import SGD, schedule
        >>> SGD(schedule.linear(1.0, 0.0, steps=4)).learning_rate(1), SGD(0.1).learning_rate(7)
        (0.75, 0.1)
        """
        return float(self.learning_rates(update, 1)[0]) if callable(self.lr) else float(self.lr)

    def hyperparameters(self) -> dict[str, Any]:
        """Everything but the learning rate, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "lr"}

    def native(self) -> tuple[str, dict[str, Any]]:
        """The op of a program that applies the rule (``csrc/ops``), and its attributes.

        >>> from gradring.optim import SGD
        >>> SGD(0.1, momentum=0.9).native()
        ('sgd', {'momentum': 0.9, 'nesterov': False, 'weight_decay': 0.0})
        """
        return self.kind, self.hyperparameters()

    def _check(self, argument: str, value: float, below: float = math.inf) -> None:
        """``0 <= value < below``, or an error that names the argument."""
        real(type(self).__name__, argument, value, least=0, below=below)


def require_optimizer(optimizer: Any) -> None:
    """``TypeError`` with the way out unless a trainer can take this for its optimizer."""
    if isinstance(optimizer, Optimizer):
        return
    got = repr(optimizer) if isinstance(optimizer, str) else type(optimizer).__name__
    hint = ""
    if isinstance(optimizer, str):
        known = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
        hint = f": write optimizer=gr.optim.{known.get(optimizer.lower(), 'AdamW')}(lr)"
    elif isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        got, hint = f"the class {optimizer.__name__}", f": write optimizer=gr.optim.{optimizer.__name__}(lr)"
    raise TypeError(f"[Trainer] optimizer must be one of gr.optim, got {got}{hint}")
