"""Lion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gradring.optim.base import Optimizer
from gradring.optim.rates import Rate

__all__ = ["Lion"]


@dataclass(frozen=True, repr=False)
class Lion(Optimizer):
    """Lion: steps of equal size, in the direction of a sign. It needs a smaller ``lr`` than AdamW, by a factor of 3 to 10,
    and a ``weight_decay`` that is larger by the same factor.

    ``p -= lr * (sign(b1 * m + (1 - b1) * grad) + weight_decay * p);  m = b2 * m + (1 - b2) * grad``

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023.

    >>> Lion(1e-4, weight_decay=0.1).state_names
    ('m',)
    """

    lr: Rate = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0

    kind: ClassVar[str] = "lion"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_betas()
        self._check("weight_decay", self.weight_decay)
        self._check_groups()

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("m",)

    def native(self) -> tuple[str, dict[str, Any]]:
        beta1, beta2 = self.betas
        return self.kind, {"beta1": beta1, "beta2": beta2, "weight_decay": self.weight_decay}
