"""Cross entropy of sigmoids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gradring.errors import NotBuilt
from gradring.losses.base import Loss

__all__ = ["BinaryCrossEntropy"]


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """``-(t log p + (1 - t) log(1 - p))`` with ``p = sigmoid(outputs)``, the mean over all elements. Targets have the shape of
    the outputs and are from 0 to 1; the model ends without a sigmoid.

    ``pos_weight`` raises ``NotBuilt``: this version's kernel has none.

    >>> BinaryCrossEntropy()
    BinaryCrossEntropy(pos_weight=None)
    """

    pos_weight: Any = None

    kind: ClassVar[str] = "binary_cross_entropy"
    counts_right: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.pos_weight is not None:
            raise NotBuilt("gr.losses.BinaryCrossEntropy(pos_weight=...) is planned; this version weighs 0 and 1 alike")

    def target_dtype(self, dtype: str) -> str:
        return dtype
