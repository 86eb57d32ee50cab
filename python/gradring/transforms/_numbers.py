"""Casts and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradring.arguments import real, whole
from gradring.arrays import as_numbers
from gradring.attributes import Settled
from gradring.transforms._base import Layout, dtype_name, layout_name

__all__ = ["Cast", "Normalize", "OneHot", "Scale"]


class Cast(Settled):
    """``x.astype(dtype)``, bit for bit.

    (The result for a float that the target integer cannot hold is unspecified, as in NumPy.)

    >>> import numpy as np
    >>> from gradring.sources import open_source
    >>> open_source(np.arange(3, dtype=np.uint8)).transformed([Cast("float32")]).read([2])
    array([2.], dtype=float32)
    """

    python = False

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = dtype_name("Cast", dtype)

    def step(self) -> tuple[Any, ...]:
        return "cast", self.dtype


class Scale(Settled):
    """``x * a + b`` in float32 (in float64 if x is), rounded after each operation: bit for bit what NumPy computes.

    Integers and half floats (float16) become float32 first.
    """

    python = False

    def __init__(self, a: float, b: float = 0.0) -> None:
        self.a, self.b = real("Scale", "a", a), real("Scale", "b", b)

    def step(self) -> tuple[Any, ...]:
        return "scale", self.a, self.b


class Normalize(Settled):
    """``(x - mean) / std`` in float32 (float64 if x is), each operation rounded: bit for bit what NumPy computes.

    ``mean`` and ``std``: one value for all, one per channel of an image (``layout`` as for ``RandomFlip``), one per
    feature of a vector, or one per element (an array of the row's shape). Integers and half floats become float32 first.
    """

    python = False

    def __init__(self, mean: Any, std: Any, *, layout: Layout = "auto") -> None:
        self.mean, self.std = _values("mean", mean), _values("std", std)
        if any(x == 0 for x in self.std):
            raise ValueError("[Normalize] std must not be zero")
        self.layout = layout_name("Normalize", layout)

    def step(self) -> tuple[Any, ...]:
        return "normalize", self.mean, self.std, self.layout


class OneHot(Settled):
    """Integers in [0, classes) become a new last axis of that length with a single 1, of ``dtype``.

    A label outside raises ``ValueError`` that names the sample.
    """

    python = False

    def __init__(self, classes: int, dtype: DTypeLike = "float32") -> None:
        self.classes = whole("OneHot", "classes", classes, 1)
        self.dtype = dtype_name("OneHot", dtype)

    def step(self) -> tuple[Any, ...]:
        return "one_hot", self.classes, self.dtype


def _values(name: str, given: float | Sequence[float] | NDArray[Any]) -> list[float]:
    values: list[float] = as_numbers("Normalize", name, given).astype(np.float64).ravel().tolist()
    if not values or not all(math.isfinite(x) for x in values):
        raise ValueError(f"[Normalize] {name} must be a finite number or an array of them, got {given}")
    return values
