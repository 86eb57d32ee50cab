"""The labels of the training data, counted for ``class_weight="balanced"``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.loader import Loader
from gradring.session.peers import Peers

__all__ = ["counted", "labels_of", "of_all_ranks"]

Array = NDArray[Any]
_ROWS = 65536  # labels that are counted at a time


def labels_of(source: Any, names: Sequence[str]) -> tuple[Iterable[Array], Callable[[int], object]] | None:
    """The labels of a loader's samples, part by part, and what the user calls a sample by its place among them; None where
    a function or an iterable has yet to make them. ``names`` are those of a batch's fields, the targets last."""
    if not isinstance(source, Loader):
        return None
    parts = source.column(names[-1] if source.names is not None else len(names) - 1, _ROWS)
    return None if parts is None else (parts, source.called)


def counted(parts: Iterable[Array], classes: int, called: Callable[[int], object] = int) -> NDArray[np.int64]:
    """How many labels there are of each class. ``ValueError`` for one that is none of the classes, with its sample."""
    counts, first = np.zeros(classes, np.int64), 0
    for part in parts:
        if part.ndim > 1 and part.dtype.kind == "f" and part[0].size > 1:
            raise ValueError(
                "[Trainer] class_weight='balanced' counts class numbers, and the targets are probabilities"
            )
        labels = part.reshape(len(part), -1)
        bad = np.argwhere(~((labels >= 0) & (labels < classes) & (labels == np.floor(labels))))  # NaN is bad too
        if len(bad):
            row, column = map(int, bad[0])
            raise ValueError(
                f"[Trainer] class_weight='balanced' counts class numbers: the label of sample {called(first + row)} is "
                f"{labels[row, column]}, must be a whole number of at least 0 and below {classes}, the number of classes"
            )
        counts += np.bincount(labels.reshape(-1).astype(np.int64), minlength=classes)
        first += len(part)
    return counts


def of_all_ranks(peers: Peers | None, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sums of these counts over the ranks that train together, so that all weigh the classes alike."""
    rows = None if peers is None or peers.apart else peers.rows(counts[None])
    return counts if rows is None else rows.sum(axis=0)
