"""RMSprop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gradring.optim.base import Optimizer
from gradring.optim.rates import Rate

__all__ = ["RMSprop"]


@dataclass(frozen=True, repr=False)
class RMSprop(Optimizer):
    """RMSprop in PyTorch's form: ``eps`` is added after the square root.

    ``g = grad + weight_decay * p;  v = alpha * v + (1 - alpha) * g**2;  d = g / (sqrt(v) + eps)``
    ``velocity = momentum * velocity + d;  p -= lr * velocity``

    ``centered`` divides by the root of ``v - mean**2`` instead, with ``mean`` a running mean of ``g``.

    Tieleman and Hinton, "Lecture 6.5 - RMSProp", 2012; the centered form: Graves, "Generating Sequences With Recurrent
    Neural Networks", 2013.

    >>> RMSprop(1e-3, momentum=0.9, centered=True).state_names
    ('v', 'mean', 'velocity')
    """

    lr: Rate = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False

    kind: ClassVar[str] = "rmsprop"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("alpha", self.alpha, below=1.0)
        self._check("eps", self.eps)
        self._check("weight_decay", self.weight_decay)
        self._check("momentum", self.momentum)
        self._check_flag("centered")
        self._check_groups()

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("v", *(("mean",) if self.centered else ()), *(("velocity",) if self.momentum else ()))
