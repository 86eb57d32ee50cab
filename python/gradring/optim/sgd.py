"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gradring.optim.base import Optimizer
from gradring.optim.rates import Rate

__all__ = ["SGD"]


@dataclass(frozen=True, repr=False)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, in PyTorch's form (no dampening).

    ``g = grad + weight_decay * p;  v = momentum * v + g;  p -= lr * (g + momentum * v if nesterov else v)``

    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.

    >>> SGD(0.1, momentum=0.9, nesterov=True).state_names
    ('momentum',)
    """

    lr: Rate
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    kind: ClassVar[str] = "sgd"
    operand_names: ClassVar[Mapping[str, str]] = {"momentum": "velocity"}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("momentum", self.momentum, below=1.0)
        self._check("weight_decay", self.weight_decay)
        self._check_flag("nesterov")
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("[SGD] nesterov needs momentum above 0, got momentum=0.0")
        self._check_groups()

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()
