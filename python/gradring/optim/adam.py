"""Adam and AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gradring.optim.base import Optimizer
from gradring.optim.rates import Rate

__all__ = ["Adam", "AdamW"]


@dataclass(frozen=True, repr=False)
class Adam(Optimizer):
    """Adam, with bias correction; update ``t`` counts from 1.

    ``m = b1 * m + (1 - b1) * grad;  v = b2 * v + (1 - b2) * grad**2``
    ``p -= lr * (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t)) + eps)``

    ``weight_decay`` is added to the gradient: ``grad += weight_decay * p``; ``AdamW`` shrinks the parameters instead.
    ``amsgrad`` uses the largest ``v`` so far in place of ``v``, and keeps it as one more array.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; Reddi, Kale and Kumar, "On the Convergence of Adam
    and Beyond", 2018.

    >>> Adam(1e-3).state_names
    ('m', 'v')
    """

    lr: Rate = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    kind: ClassVar[str] = "adam"
    _decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_betas()
        self._check("eps", self.eps)
        self._check("weight_decay", self.weight_decay)
        self._check_flag("amsgrad")
        self._check_groups()

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("m", "v", "vmax") if self.amsgrad else ("m", "v")

    def native(self) -> tuple[str, dict[str, Any]]:
        values = self.hyperparameters()
        del values["amsgrad"]  # the op infers it from its operands
        beta1, beta2 = values.pop("betas")
        return "adam", {"beta1": beta1, "beta2": beta2, **values, "decoupled": self._decoupled}


@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay: ``p -= lr * weight_decay * p`` before Adam's own update.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.

    >>> AdamW(1e-3, weight_decay=0.1).hyperparameters()
    {'betas': (0.9, 0.999), 'eps': 1e-08, 'weight_decay': 0.1, 'amsgrad': False}
    """

    weight_decay: float = 1e-2

    kind: ClassVar[str] = "adamw"
    _decoupled: ClassVar[bool] = True
