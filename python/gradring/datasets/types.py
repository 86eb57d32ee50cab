"""The type of data sets: two pairs of arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset", "Samples"]


class Samples(NamedTuple):
    """Samples ``x``, one per row, and their labels ``y``."""

    x: NDArray[Any]
    y: NDArray[np.int64]


class Dataset(NamedTuple):
    """Samples to train on, and others to test on."""

    train: Samples
    test: Samples
