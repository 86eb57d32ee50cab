"""The base class of losses, which are small immutable descriptions. The arithmetic is native, in ``csrc/ops``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["Loss"]


@dataclass(frozen=True)
class Loss(ABC):
    """A function of the model's outputs and the targets, whose mean over the samples is made small.

    ``kind`` names the op. ``counts_right`` says whether the op counts the rows whose prediction is right, which gives the
    accuracy.
    """

    kind: ClassVar[str]
    counts_right: ClassVar[bool]

    @abstractmethod
    def target_dtype(self, dtype: str) -> str:
        """The dtype of the targets in a program that computes in ``dtype``."""

    def targets(self, y: Any) -> Any:
        """Targets, an array or what has its shape and dtype, as the loss takes them; ``TypeError`` or ``ValueError``."""
        return y

    def __str__(self) -> str:
        return self.kind
