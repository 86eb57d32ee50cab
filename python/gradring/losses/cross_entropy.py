"""Cross entropy of a softmax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import real, whole
from gradring.losses.base import Loss, Native, Reduction, numbers

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CrossEntropy"]


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """``-log(softmax(outputs)[label])`` of (batch, classes) outputs, for a model without a softmax at its end, and
    (batch,) integer labels; (batch, 1) is accepted too. Floating targets (batch, classes) are distributions: ``-sum(t
    log p)``. Each row of them must add up to 1, but for an error of at most 0.01, as roundings to half floats make.

    ``label_smoothing`` spreads that share of each target evenly over all classes. ``weight`` has a number for each class, by
    which the term of that class is multiplied; with class numbers the mean is then the sum of the losses over the sum of
    the labels' weights, and with distributions it is over the number of samples. These are the definitions of
    ``torch.nn.CrossEntropyLoss``.

    >>> CrossEntropy(label_smoothing=0.1)
    CrossEntropy(weight=None, label_smoothing=0.1, reduction='mean')
    """

    weight: Any = None
    label_smoothing: float = 0.0
    reduction: Reduction = "mean"
    _by_class: Any = field(default=None, repr=False)  # items of a dict, until the number of classes is known
    _asked: str = field(default="[CrossEntropy] weight", repr=False, compare=False)  # where the weights were given

    kind: ClassVar[str] = "cross_entropy"
    counts_right: ClassVar[bool] = True
    spoiled_by: ClassVar[tuple[str, ...]] = ("sigmoid", "softmax")

    def __post_init__(self) -> None:
        real("CrossEntropy", "label_smoothing", self.label_smoothing, least=0, below=1)
        self._check_reduction(self.reduction)
        if self.weight is not None:
            object.__setattr__(self, "weight", numbers("CrossEntropy", "weight", self.weight))

    def native(self) -> Native:
        attributes: dict[str, Any] = {"label_smoothing": float(self.label_smoothing)} if self.label_smoothing else {}
        if self.reduction == "sum":
            attributes["reduction"] = "sum"
        return Native("cross_entropy", attributes, {} if self.weight is None else {"class_weight": self.weight})

    def target(
        self, outputs: tuple[int, ...], dtype: str, given: tuple[tuple[int, ...], str] | None = None
    ) -> tuple[tuple[int, ...], str]:
        soft = given is not None and given[1] != "int64"
        return (outputs, dtype) if soft else (outputs[:1], "int64")

    def terms(self, outputs: tuple[int, ...]) -> int:
        return 1

    def divides_by_class_weights(self, target: str) -> bool:
        return self.weight is not None and target == "int64"

    def bad_target(self, target: Any, dtype: str, classes: int | None) -> str:
        if dtype != "int64":
            if target is not None and ((target >= 0) & (target <= 1)).all():
                total = float(np.sum(target, dtype=np.float64))
                return (
                    f"the target's probabilities add up to {total:.6g}, and not to 1: divide each row by its sum; labels "
                    "of which several apply to a sample need loss='binary_cross_entropy'"
                )
            return "the target is no distribution: probabilities are from 0 to 1, and those of a row add up to 1"
        label = "out of range:" if target is None else f"{target},"
        return f"label is {label} must be at least 0 and below {classes}, the number of classes"

    def probabilities(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """The softmax of the last axis.

        >>> CrossEntropy().probabilities(np.array([[0.0, 0.0], [1e3, -1e3]])).tolist()
        [[0.5, 0.5], [1.0, 0.0]]
        """
        with np.errstate(under="ignore"):
            powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True)) if outputs.size else outputs
            shares: NDArray[Any] = powers / powers.sum(axis=-1, keepdims=True)
        return shares

    def likeliest(self, outputs: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = outputs.argmax(axis=-1)
        return found

    def target_dtype(self, dtype: str, y: Any = None) -> str:
        return dtype if y is not None and y.dtype.kind == "f" else "int64"

    def targets(self, y: Any) -> Any:
        if y.ndim == 2 and y.shape[1] == 1:
            y = y.reshape(-1)
        if y.ndim == 2 and y.dtype.kind == "f":
            return y
        if y.ndim == 2:
            raise ValueError(
                f"[cross_entropy] y is {y.shape} of {y.dtype}: must be (batch,) integer labels, or (batch, classes) "
                "probabilities of a floating dtype; of one-hot rows, y.argmax(axis=1) makes labels"
            )
        if y.ndim != 1:
            raise ValueError(f"[cross_entropy] y is {y.shape}: must be (batch,) integer labels")
        if y.dtype.kind not in "iu":
            missing = np.flatnonzero(np.isnan(y)).tolist() if isinstance(y, np.ndarray) and y.dtype.kind == "f" else []
            if missing:
                raise ValueError(
                    f"[cross_entropy] y of sample {missing[0]} is missing (NaN), one of {len(missing)}: leave such samples "
                    "out, and give the labels as integers, y.astype(numpy.int64)"
                )
            raise TypeError(
                f"[cross_entropy] y must be integer labels, got dtype {y.dtype}: y.astype(numpy.int64) makes them of whole "
                "numbers and of truth values; numbers to predict need loss='mse', one output that is true or false "
                "'binary_cross_entropy', and probabilities have the shape (batch, classes)"
            )
        return y

    def with_class_weight(self, weights: Any) -> Self:
        if self.weight is not None:
            raise ValueError("[Trainer] class_weight and CrossEntropy(weight=) are both given: leave one of them out")
        if not isinstance(weights, Mapping):
            return replace(self, weight=numbers("Trainer", "class_weight", weights), _asked="[Trainer] class_weight")
        for label, weight in weights.items():
            whole("Trainer", "class_weight: a label", label, 0)
            real("Trainer", f"class_weight: the weight of class {label}", weight, least=0)
        if not weights:
            raise ValueError("[Trainer] class_weight is an empty dict: give the weight of at least one class, or None")
        return replace(self, _by_class=tuple(weights.items()))

    def for_outputs(self, shape: tuple[int, ...]) -> Self:
        if len(shape) != 2:
            raise ValueError(f"[cross_entropy] the model's output is {shape}: must be (batch, classes)")
        classes = shape[-1]
        if classes == 1:
            raise ValueError(
                "[cross_entropy] the model gives one output, for which the loss is always 0: give one output per class, or use "
                "loss='binary_cross_entropy' for one output that is true or false"
            )
        if self._by_class is not None:
            given = dict(self._by_class)
            unknown = [label for label in given if label >= classes]
            if unknown:
                raise ValueError(
                    f"[Trainer] class_weight has class {unknown[0]}, and the model has {classes} outputs: classes are from "
                    f"0 to {classes - 1}"
                )
            by_class = tuple(float(given.get(label, 1.0)) for label in range(classes))
            return replace(self, weight=by_class, _by_class=None)
        if self.weight is not None and len(self.weight) != classes:
            raise ValueError(
                f"{self._asked}: there are weights for {len(self.weight)} classes, and the model has {classes} outputs: give "
                "one for each class"
            )
        return self
