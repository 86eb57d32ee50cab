"""Adam and AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gradring.optim.base import Optimizer
from gradring.optim.schedule import Schedule

__all__ = ["Adam", "AdamW"]


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam, with bias correction; update ``t`` counts from 1.

    ``m = b1 * m + (1 - b1) * grad;  v = b2 * v + (1 - b2) * grad**2``
    ``p -= lr * (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t)) + eps)``

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.

    >>> Adam(1e-3).state_names
    ('m', 'v')
    """

    lr: float | Schedule = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    kind: ClassVar[str] = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise TypeError(f"[{name}] betas must be two numbers, got {self.betas!r}")
        object.__setattr__(self, "betas", tuple(self.betas))
        for i, beta in enumerate(self.betas):
            self._check(f"betas[{i}]", beta, below=1.0)
        self._check("eps", self.eps)

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("m", "v")

    def native(self) -> tuple[str, dict[str, Any]]:
        values = self.hyperparameters()
        beta1, beta2 = values.pop("betas")
        return "adam", {"beta1": beta1, "beta2": beta2, **values, "decoupled": self.kind == "adamw"}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: ``p -= lr * weight_decay * p`` before Adam's own update.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.

    >>> AdamW(1e-3, weight_decay=0.1).hyperparameters()
    {'betas': (0.9, 0.999), 'eps': 1e-08, 'weight_decay': 0.1}
    """

    weight_decay: float = 1e-2

    kind: ClassVar[str] = "adamw"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("weight_decay", self.weight_decay)
