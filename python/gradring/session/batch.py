"""What a session is fed: (x, y) as arrays in memory or as a loader's fields, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.arrays import as_numbers

__all__ = ["Fields", "Look", "check_target", "fields_of", "rows_contiguous"]

Array = NDArray[Any]

_NATIVE = frozenset(
    ("float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
)


@dataclass(frozen=True)
class Look:
    """The shape, with the axis of the samples, and the dtype of a field whose batches a loader has yet to fill."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def reshape(self, size: int) -> Look:
        """One axis with all elements; ``size`` is -1, as for an array."""
        return Look((self.size,), self.dtype)


class Fields(Protocol):
    """What a session asks of a loader: how (x, y) look, and a native feed of their batches."""

    @property
    def looks(self) -> Sequence[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Of each field the shape, with the axis of the samples, and the dtype."""
        ...

    def open(self, dtypes: Sequence[str]) -> Any:
        """A ``_core.Feed`` whose fields have these dtypes."""
        ...


def rows_contiguous(x: ArrayLike, what: str, dtype: str) -> Array:
    """``x`` as an array whose rows are contiguous and whose dtype the native gather reads; a copy only where needed."""
    array = np.asarray(as_numbers("Trainer", what, x))
    if array.ndim == 0:
        raise ValueError(f"[Trainer] {what} must have a batch axis, got a scalar")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.name not in _NATIVE:
        array = array.astype(dtype)
    if array.size and array.ndim > 1 and not array[0].flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if array.ndim == 1 and array.size > 1 and array.strides[0] == 0:
        array = np.ascontiguousarray(array)
    return array


def fields_of(arrays: Sequence[ArrayLike] | Fields, loss: str, dtype: str) -> tuple[Any, Any]:
    """(x, y) with equally many rows, and labels that are integers where the loss wants them: arrays, or a ``Look`` each
    where they come from a loader."""
    looks = getattr(arrays, "looks", None)
    given: Any = arrays if looks is None else tuple(Look(*look) for look in looks)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError("[Trainer] arrays must be (x, y)")
    x, y = given
    if looks is None:
        x, y = rows_contiguous(x, "x", dtype), rows_contiguous(y, "y", dtype)
    if len(x) != len(y):
        raise ValueError(f"[Trainer] x has {len(x)} samples, y has {len(y)}: must be equal")
    if len(x) == 0:
        raise ValueError(f"[Trainer] x is {x.shape}: must have at least one sample")
    if x.size == 0:
        raise ValueError(f"[Trainer] x is {x.shape}: a sample must have at least one element")
    if loss == "cross_entropy":
        if y.ndim == 2 and y.shape[1] == 1:
            y = y.reshape(-1)
        if y.ndim != 1:
            raise ValueError(f"[cross_entropy] y is {y.shape}: must be (batch,) integer labels")
        if y.dtype.kind not in "iu":
            raise TypeError(f"[cross_entropy] y must be integer labels, got dtype {y.dtype}")
    return x, y


def check_target(wanted: tuple[int, ...], y: Array | Look, loss: str) -> None:
    """``y`` has rows of the target's shape."""
    if y.shape[1:] != wanted[1:]:
        raise ValueError(
            f"[{loss}] y is {y.shape}, the model gives {wanted} for a batch of {wanted[0]}: "
            f"y must be (samples, {', '.join(map(str, wanted[1:]))})"
        )
