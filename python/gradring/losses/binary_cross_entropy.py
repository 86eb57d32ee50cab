"""Cross entropy of sigmoids."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradring.losses.base import Loss, Native, Reduction, numbers

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BinaryCrossEntropy"]


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """``-(t log p + (1 - t) log(1 - p))`` with ``p = sigmoid(outputs)``, the mean over all elements. Targets have the shape of
    the outputs and are from 0 to 1; the model must not end with a sigmoid.

    Several outputs are several labels, each of which applies or not; the accuracy counts the samples for which every label
    is right. ``pos_weight``, a number or one for each label, multiplies the first term: above 1 it makes the model find
    more of the rare ones. That is the definition of ``torch.nn.BCEWithLogitsLoss``.

    >>> BinaryCrossEntropy(pos_weight=3.0)
    BinaryCrossEntropy(pos_weight=3.0, reduction='mean')
    """

    pos_weight: Any = None
    reduction: Reduction = "mean"
    _by_class: tuple[float, ...] | None = field(default=None, repr=False)  # the weights of targets 0 and 1

    kind: ClassVar[str] = "binary_cross_entropy"
    counts_right: ClassVar[bool] = True
    spoiled_by: ClassVar[tuple[str, ...]] = ("sigmoid",)

    def __post_init__(self) -> None:
        self._check_reduction(self.reduction)
        if self.pos_weight is None:
            return
        given = self.pos_weight
        weights = numbers("BinaryCrossEntropy", "pos_weight", [given] if np.ndim(given) == 0 else given)
        object.__setattr__(self, "pos_weight", weights[0] if np.ndim(given) == 0 else weights)

    def native(self) -> Native:
        constants: dict[str, tuple[float, ...]] = {}
        if self._by_class is not None:
            constants["class_weight"] = self._by_class
        if self.pos_weight is not None:
            constants["pos_weight"] = self.pos_weight
        attributes = {} if self.reduction == "mean" else {"reduction": "sum"}
        return Native("binary_cross_entropy", attributes, constants)

    def divides_by_class_weights(self, target: str) -> bool:
        return self._by_class is not None

    def class_count(self, outputs: tuple[int, ...]) -> int:
        return 2

    def bad_target(self, target: Any, dtype: str, classes: int | None) -> str:
        shown = "" if target is None or (target.ndim and target.size >= 9) else f", {target},"
        return f"the target{shown} must be from 0 to 1: divide 0..255 by 255, and (y + 1) / 2 makes 0 and 1 of -1 and 1"

    def probabilities(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """The sigmoid of each output.

        >>> BinaryCrossEntropy().probabilities(np.array([[0.0, 1e3, -1e3]])).tolist()
        [[0.5, 1.0, 0.0]]
        """
        with np.errstate(under="ignore"):
            small = np.exp(-np.abs(outputs))
            shares: NDArray[Any] = np.where(outputs >= 0, 1 / (1 + small), small / (1 + small))
        return shares

    def likeliest(self, outputs: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = (outputs > 0).astype(np.int64)
        return found

    def with_class_weight(self, weights: Any) -> Self:
        if self.pos_weight is not None:
            raise ValueError("[Trainer] class_weight and BinaryCrossEntropy(pos_weight=) are both given: leave one out")
        if isinstance(weights, Mapping):
            unknown = [label for label in weights if label not in (0, 1)]
            if unknown or not weights:
                raise ValueError(f"[Trainer] class_weight must have the classes 0 and 1, got {dict(weights)}")
            weights = [weights.get(0, 1.0), weights.get(1, 1.0)]
        found = numbers("Trainer", "class_weight", weights)
        if len(found) != 2:
            raise ValueError(f"[Trainer] class_weight must have the weights of 0 and of 1, got {len(found)} numbers")
        return replace(self, _by_class=found)

    def for_outputs(self, shape: tuple[int, ...]) -> Self:
        columns = math.prod(shape[1:])
        if self._by_class is not None and columns != 1:
            raise ValueError(
                f"[Trainer] class_weight: the model gives {columns} labels for each sample, and each of them is 0 or 1: weigh "
                "them by gr.losses.BinaryCrossEntropy(pos_weight=[...])"
            )
        if self.pos_weight is None:
            return self
        weights = (self.pos_weight,) * columns if isinstance(self.pos_weight, float) else self.pos_weight
        if len(weights) != columns:
            raise ValueError(
                f"[BinaryCrossEntropy] pos_weight has {len(weights)} numbers, and the model gives {columns} labels for each "
                "sample: give one for each"
            )
        return replace(self, pos_weight=weights)
