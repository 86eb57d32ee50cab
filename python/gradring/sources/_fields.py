"""Fields: the dtype and the shape of an array of samples, for NumPy and for the native core."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from gradring.arrays import NATIVE_DTYPES

__all__ = ["Field", "named_first"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Field:
    """One array of a sample: its name, dtype and shape, without the axis of the samples."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype.hasobject:
            raise TypeError(
                f"[loader] field {self.name!r} has dtype object: a loader moves bytes, not Python objects; "
                "convert it to numbers, or read it with gr.sources.Callable"
            )
        if self.dtype.names is not None:
            raise TypeError(
                f"[loader] field {self.name!r} holds records ({', '.join(self.dtype.names)}): "
                "give the structured array alone, or its fields one by one"
            )
        if self.dtype.itemsize == 0:
            raise TypeError(f"[loader] field {self.name!r} has dtype {self.dtype}, whose elements have no bytes")

    @property
    def plain(self) -> bool:
        """Whether native code reads it as numbers. Anything else (complex numbers, dates, bytes) travels as plain bytes."""
        return self.dtype.newbyteorder("=").name in NATIVE_DTYPES

    @property
    def swapped(self) -> bool:
        """Whether its byte order is not this machine's, so that reading must reverse it."""
        return self.plain and not self.dtype.isnative

    @property
    def native(self) -> tuple[str, str, list[int]]:
        """The tuple (name, dtype, shape) for the native core."""
        if self.plain:
            return self.name, self.dtype.newbyteorder("=").name, list(self.shape)
        return self.name, "uint8", [*self.shape, self.dtype.itemsize]

    @property
    def delivered(self) -> Field:
        """The field in the form that batches have."""
        return Field(self.name, self.dtype.newbyteorder("="), self.shape) if self.swapped else self

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def named_first(parts: Mapping[str, _T]) -> dict[str, _T]:
    """The same dict with "x", "y" and "weight" (if it has x and y) before all others, so that the order of a step's fields
    does not depend on the order in which a user named them."""
    if not {"x", "y"} <= parts.keys():
        return dict(parts)
    return {**{name: parts[name] for name in ("x", "y", "weight") if name in parts}, **parts}
