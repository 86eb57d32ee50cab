"""Cross entropy of a softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gradring.arguments import real
from gradring.errors import NotBuilt
from gradring.losses.base import Loss

__all__ = ["CrossEntropy"]


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """``-log(softmax(outputs)[label])`` of (batch, classes) outputs, without a softmax at the model's end, and (batch,)
    integer labels; (batch, 1) is taken too.

    ``weight`` per class and ``label_smoothing`` above 0 raise ``NotBuilt``: this version's kernel has neither.

    >>> CrossEntropy()
    CrossEntropy(weight=None, label_smoothing=0.0)
    """

    weight: Any = None
    label_smoothing: float = 0.0

    kind: ClassVar[str] = "cross_entropy"
    counts_right: ClassVar[bool] = True

    def __post_init__(self) -> None:
        real("CrossEntropy", "label_smoothing", self.label_smoothing, least=0, below=1)
        if self.weight is not None:
            raise NotBuilt("gr.losses.CrossEntropy(weight=...) is planned; this version weighs all classes alike")
        if self.label_smoothing:
            raise NotBuilt(
                "gr.losses.CrossEntropy(label_smoothing=...) is planned; this version takes labels as they are"
            )

    def target_dtype(self, dtype: str) -> str:
        return "int64"

    def targets(self, y: Any) -> Any:
        if y.ndim == 2 and y.shape[1] == 1:
            y = y.reshape(-1)
        if y.ndim != 1:
            raise ValueError(f"[cross_entropy] y is {y.shape}: must be (batch,) integer labels")
        if y.dtype.kind not in "iu":
            raise TypeError(f"[cross_entropy] y must be integer labels, got dtype {y.dtype}")
        return y
