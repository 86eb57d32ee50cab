"""The base class of losses, which are small immutable descriptions. The arithmetic is native, in ``csrc/ops``."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.arguments import choice
from gradring.arrays import as_numbers
from gradring.attributes import Explained, explain_read_only

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ClassWeight", "Loss", "Native", "Reduction", "balanced", "by_name", "numbers"]

ClassWeight: TypeAlias = "Mapping[int, float] | ArrayLike | Literal['balanced'] | None"
Reduction = Literal["mean", "sum"]
Shape: TypeAlias = tuple[int, ...]


class Native(NamedTuple):
    """How a program computes a loss: the op, its attributes, and its arrays of numbers by role."""

    op: str
    attributes: Mapping[str, Any]
    constants: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Loss(metaclass=Explained):
    """A function of the model's outputs and the targets, whose mean over the samples a training minimizes.

    With sample weights the mean is the sum of the weighted losses over the sum of the weights, over all batches of an
    update or of an evaluation. ``reduction="sum"`` adds the losses of all elements, and divides by nothing.

    ``kind`` names the op. ``counts_right`` says whether the outputs are scores of classes: the op then counts the rows whose
    prediction is right, which gives the accuracy. ``spoiled_by`` are activations with which a model must not end,
    because the loss has one of its own. ``named`` says whether the string ``kind`` stands for the loss without options.

    All that the other parts of the package know of a loss they learn from its methods and from the op's schema.
    """

    kind: ClassVar[str]
    counts_right: ClassVar[bool]
    spoiled_by: ClassVar[tuple[str, ...]] = ()
    named: ClassVar[bool] = True

    def __new__(cls, *_: Any, **__: Any) -> Self:
        explain_read_only(cls, "make another loss, and a new trainer with it, which keeps the model's parameters")
        return super().__new__(cls)

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
        others = [kind for kind, loss in by_name().items() if loss.with_class_weight is not Loss.with_class_weight]
        raise TypeError(
            f"[Trainer] class_weight goes with {' and '.join(others)}, and the loss is {self.kind}: give the weight of each "
            "sample instead, as the field 'weight'"
        )

    def for_outputs(self, shape: Shape) -> Self:
        """This loss for outputs of ``shape``, whose first axis is the samples. ``ValueError`` if the two do not fit."""
        return self

    # What a program asks. `outputs` is the shape of the model's outputs, samples included.

    @property
    def summed(self) -> bool:
        """Whether the losses of all elements are added, and divided by nothing."""
        return getattr(self, "reduction", "mean") == "sum"

    def target(self, outputs: Shape, dtype: str, given: tuple[Shape, str] | None = None) -> tuple[Shape, str]:
        """The shape and dtype of a batch's targets in a program that computes in ``dtype``; ``given`` are the shape of a row
        and the dtype of the targets at hand, where they are known."""
        return outputs, dtype

    def terms(self, outputs: Shape) -> int:
        """The number of losses that one sample adds to a sum."""
        return math.prod(outputs[1:])

    def divides_by_class_weights(self, target: str) -> bool:
        """Whether the mean is over the weights of the classes, for targets of this dtype."""
        return False

    def class_count(self, outputs: Shape) -> int:
        """The number of classes that ``class_weight`` weighs."""
        return outputs[-1]

    # What errors and predictions ask

    def bad_target(self, target: Any, dtype: str, classes: int | None) -> str:
        """What is wrong with the target of a sample that the op has refused. The target is None where it does not lie in
        memory; ``dtype`` is that of the targets in the program, and class numbers must be below ``classes``."""
        return "the target cannot be"

    def take_failure(self) -> BaseException | None:
        """The exception that ended the last step, if the loss has raised one."""
        return None

    def probabilities(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """The probabilities that the outputs stand for, in their dtype; only for a loss with ``counts_right``."""
        raise NotImplementedError(f"[{self.kind}] the outputs are no scores of classes")

    def likeliest(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """The likeliest class of each sample, or whether each label is likelier than not, as integers."""
        raise NotImplementedError(f"[{self.kind}] the outputs are no scores of classes")

    def _check_reduction(self, reduction: Any) -> None:
        choice(type(self).__name__, "reduction", reduction, ("mean", "sum"))

    def __str__(self) -> str:
        return self.kind


def by_name() -> dict[str, type[Loss]]:
    """The losses that have a name, in the order of their definitions."""

    def below(loss: Any) -> Iterator[type[Loss]]:
        for other in loss.__subclasses__():
            yield other
            yield from below(other)

    own = [loss for loss in below(Loss) if loss.__module__.startswith("gradring.losses.")]
    return {loss.kind: loss for loss in own if loss.named and hasattr(loss, "kind")}


def numbers(where: str, argument: str, given: Any) -> tuple[float, ...]:
    """A vector of weights as floats. Anything else raises ``TypeError`` or ``ValueError``, which names the argument."""
    array = as_numbers(where, argument, given).astype(np.float64)
    where = f"[{where}] {argument}"
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
