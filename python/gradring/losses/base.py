"""The base class of losses, which are small immutable descriptions. The arithmetic is native, in ``csrc/ops``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from gradring.arguments import choice

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ClassWeight", "Loss", "Native", "Reduction", "balanced", "numbers"]

ClassWeight: TypeAlias = "Mapping[int, float] | ArrayLike | Literal['balanced'] | None"
Reduction = Literal["mean", "sum"]


class Native(NamedTuple):
    """How a program computes a loss: the op, its attributes, and its arrays of numbers by role."""

    op: str
    attributes: Mapping[str, Any]
    constants: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Loss(ABC):
    """A function of the model's outputs and the targets, whose mean over the samples a training makes small.

    With sample weights the mean is the sum of the weighted losses over the sum of the weights, over all batches of an
    update or of an evaluation. ``reduction="sum"`` adds the losses of all elements, and divides by nothing.

    ``kind`` names the op. ``counts_right`` says whether the op counts the rows whose prediction is right, which gives the
    accuracy.
    """

    kind: ClassVar[str]
    counts_right: ClassVar[bool]

    @abstractmethod
    def native(self) -> Native:
        """How a program computes the loss."""

    def target_dtype(self, dtype: str, y: Any = None) -> str:
        """The dtype of the targets ``y`` (an array, or an object with its dtype) in a program that computes in
        ``dtype``."""
        return dtype

    def targets(self, y: Any) -> Any:
        """Check targets (an array, or an object with its shape and dtype) for this loss. Raises ``TypeError`` or
        ``ValueError``."""
        return y

    def with_class_weight(self, weights: Any) -> Self:
        """This loss with a weight for each class: a dict by class number, or an array. ``TypeError`` for a loss without
        classes."""
        raise TypeError(
            f"[Trainer] class_weight goes with cross_entropy and binary_cross_entropy, and the loss is {self.kind}: give the "
            "weight of each sample instead, as the field 'weight'"
        )

    def for_outputs(self, shape: tuple[int, ...]) -> Self:
        """This loss for outputs of ``shape``, whose first axis is the samples. ``ValueError`` if the two do not fit."""
        return self

    def _check_reduction(self, reduction: Any) -> None:
        choice(type(self).__name__, "reduction", reduction, ("mean", "sum"))

    def __str__(self) -> str:
        return self.kind


def numbers(where: str, given: Any) -> tuple[float, ...]:
    """A vector of weights as floats. Anything else raises ``TypeError`` or ``ValueError``, whose message begins with
    ``where``."""
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{where} must be a vector of numbers, got {type(given).__name__}") from None
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{where} must be a vector of numbers, got an array of shape {array.shape}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        raise ValueError(f"{where}: number {int(bad[0])} is {array[bad[0]]}: must be finite and at least 0")
    if not array.any():
        raise ValueError(f"{where}: all are zero: at least one must be above 0")
    return tuple(array.tolist())


def balanced(counts: Sequence[int]) -> dict[int, float]:
    """Weights by which every class counts alike, for as many samples of each class: ``samples / (classes * samples of the
    class)``; ``ValueError`` for a class without samples.

    >>> balanced([3, 1])
    {0: 0.6666666666666666, 1: 2.0}
    """
    classes, total = len(counts), sum(counts)
    absent = [label for label, count in enumerate(counts) if not count]
    if absent:
        raise ValueError(
            f"[Trainer] class_weight='balanced': class {absent[0]} of {classes} has no sample in the training data, so no "
            "weight makes it count as the others: give class_weight as a dict, or train a model of the classes that are there"
        )
    return {label: float(total / (classes * count)) for label, count in enumerate(counts)}
