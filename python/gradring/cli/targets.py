"""The targets of a training: classes or numbers. The command prints which of the two, and why, and keeps it in the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gradring.losses import LossName

__all__ = ["Goal", "goal"]

Array = NDArray[Any]
Kind = Literal["classify", "regress"]
_KEPT = "the file of the model says so"
_FEW, _MANY, _EACH = 20, 1000, 10  # up to _FEW values are classes; up to _MANY, if each has _EACH samples


@dataclass(frozen=True)
class Goal:
    """A task, and how its targets become what a network is trained on: the labels of its classes in the order of its
    outputs, or the mean and the deviation of each number to predict."""

    kind: Kind
    labels: tuple[Any, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    why: str = ""

    @property
    def outputs(self) -> int:
        return max(len(self.labels), 2) if self.kind == "classify" else len(self.mean)

    @property
    def loss(self) -> LossName:
        return "cross_entropy" if self.kind == "classify" else "mse"

    def encoded(self, y: Array) -> Array:
        """Targets as the network is trained on them: the numbers of the classes, or numbers of mean 0 and deviation 1."""
        if self.kind == "regress":
            table = y.reshape(len(y), -1).astype(np.float64)
            scaled: Array = (table - np.asarray(self.mean)) / np.asarray(self.deviation)
            return scaled
        labels = np.asarray(self.labels)
        places: Array = np.searchsorted(labels, y.reshape(-1))
        return places

    def decoded(self, outputs: Array) -> Array:
        """Converts the network's outputs to labels (N,), or to numbers (N,) or (N, k)."""
        if self.kind == "classify":
            chosen: Array = np.asarray(self.labels)[outputs.argmax(axis=1)]
            return chosen
        numbers: Array = outputs.astype(np.float64) * np.asarray(self.deviation) + np.asarray(self.mean)
        return numbers[:, 0] if numbers.shape[1] == 1 else numbers

    def note(self) -> str:
        """The task as a text, which a file keeps."""
        if self.kind == "classify":
            return json.dumps({"task": self.kind, "labels": self.labels})
        return json.dumps({"task": self.kind, "mean": self.mean, "deviation": self.deviation})

    @classmethod
    def from_note(cls, text: str) -> Goal:
        """Make the task from a text that ``note`` wrote. Other texts raise ``ValueError``."""
        try:
            said = json.loads(text)
            if said["task"] == "classify":
                labels = tuple(said["labels"])
                if not labels or not all(isinstance(label, (str, int, float)) for label in labels):
                    raise ValueError("its labels are neither texts nor numbers")
                return cls("classify", labels, why=_KEPT)
            mean, deviation = (tuple(float(v) for v in said[name]) for name in ("mean", "deviation"))
            if said["task"] != "regress" or not mean or len(mean) != len(deviation):
                raise ValueError("it is neither classify nor regress")
            return cls("regress", mean=mean, deviation=deviation, why=_KEPT)
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"the note of its task is damaged: {error}") from error

    def __str__(self) -> str:
        if self.kind == "classify":
            return f"classify, {len(self.labels)} classes ({_shown(self.labels)}), because {self.why}"
        numbers = "one number" if self.outputs == 1 else f"{self.outputs} numbers"
        return f"regress, {numbers}, because {self.why}"


def _shown(labels: Sequence[Any]) -> str:
    texts = [str(label) for label in labels]
    return ", ".join(texts) if len(texts) <= 6 else f"{', '.join(texts[:3])}, ..., {texts[-1]}"


def goal(command: str, name: str, y: Array, asked: Kind | None) -> Goal:
    """The task of targets ``y`` from the file ``name``: the requested one, or the one that fits the targets."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "fiubUS" or y.ndim > 2:
        raise TypeError(
            f"[{command}] {name} must hold labels (N,), or numbers (N,) or (N, k), got {y.shape} of {y.dtype}"
        )
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int(np.argwhere(~np.isfinite(y))[0][0])
        raise ValueError(f"[{command}] {name}: the target of sample {row} is {y[row]}: every target must be finite")
    kind, why = (asked, f"--task {asked} says so") if asked is not None else _inferred(command, name, y)
    if kind == "classify":
        return _classes(command, name, y, why)
    if y.dtype.kind in "US":
        raise ValueError(f"[{command}] --task regress needs numbers, but {name} holds texts")
    table = y.reshape(len(y), -1).astype(np.float64)
    mean, deviation = table.mean(axis=0), table.std(axis=0)
    deviation[deviation == 0] = 1.0
    return Goal("regress", mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()), why=why)


def _classes(command: str, name: str, y: Array, why: str) -> Goal:
    if y.ndim != 1:
        raise ValueError(
            f"[{command}] {name} is {y.shape}; labels of classes must be (N,): of rows with a 1, take argmax(1)"
        )
    labels = np.unique(y)
    if len(labels) < 2:
        raise ValueError(f"[{command}] {name} has only one class, {labels[0]!s}: at least two are needed")
    if len(labels) > 100_000:
        raise ValueError(f"[{command}] {name} has {len(labels)} different values: too many classes; try --task regress")
    return Goal("classify", tuple(_text(label) for label in labels.tolist()), why=why)


def _text(label: Any) -> Any:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else label


def _inferred(command: str, name: str, y: Array) -> tuple[Kind, str]:
    if y.dtype.kind in "US":
        return "classify", f"{name} holds texts"
    if y.dtype.kind == "b":
        return "classify", f"{name} holds true and false"
    if y.ndim == 2:
        if y.dtype.kind != "f":
            raise ValueError(
                f"[{command}] {name} is {y.shape}; int labels must be (N,): take argmax(1) of rows with a 1, or say "
                "--task regress to predict all these numbers"
            )
        if y.shape[1] > 1 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
            raise ValueError(
                f"[{command}] {name} is {y.shape} and has a single 1 in each row: of labels, take argmax(1), or say --task "
                "regress to predict all these numbers"
            )
        return "regress", f"{name} holds {y.shape[1]} numbers per sample"
    if y.dtype.kind == "f" and not (y == np.floor(y)).all():
        return "regress", f"{name} holds fractions"
    count = len(np.unique(y))
    # Targets that repeat often are classes; targets that rarely repeat, such as prices, are amounts.
    if count <= min(_FEW, max(len(y) // 2, 2)) or (count <= _MANY and len(y) >= _EACH * count):
        return (
            "classify",
            f"{name} holds whole numbers, {count} of which differ in {len(y)} samples (else --task regress)",
        )
    return "regress", f"{name} holds {count} different whole numbers in {len(y)} samples (else --task classify)"
