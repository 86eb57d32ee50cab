"""The data of a session: named fields, as arrays in memory or from a loader, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.arrays import NATIVE_DTYPES, as_numbers
from gradring.losses import Loss

__all__ = ["Bound", "Fields", "Look", "bind", "check_target", "rows_contiguous"]

Array = NDArray[Any]


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
    """The interface of a loader that a session uses: the shapes and dtypes of its fields, and a native feed of its batches."""

    @property
    def looks(self) -> Sequence[tuple[tuple[int, ...], np.dtype[Any]]]:
        """The shape, with the axis of the samples, and the dtype of each field."""
        ...

    def open(self, dtypes: Sequence[str]) -> Any:
        """A ``_core.Feed`` whose fields have these dtypes."""
        ...


@dataclass(frozen=True)
class Bound:
    """Fields in the order of a session's names, the targets last: arrays, or a ``Look`` each if ``feed`` has them.

    ``slots`` are their numbers in a batch of the feed. ``copied`` says that an array here is not the one that was given.
    """

    fields: tuple[Any, ...]
    slots: tuple[int, ...]
    feed: Fields | None = None
    copied: bool = False

    def __len__(self) -> int:
        return len(self.fields[0])

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays, if the fields lie in memory; else none."""
        return () if self.feed is not None else self.fields

    @cached_property
    def signature(self) -> tuple[Any, ...]:
        """The shapes and dtypes on which programs depend, beside the number of rows."""
        return tuple((f.shape[1:], f.dtype.kind in "iu", slot) for f, slot in zip(self.fields, self.slots, strict=True))


def rows_contiguous(x: ArrayLike, what: str, dtype: str) -> Array:
    """``x`` as an array whose rows are contiguous and whose dtype the native gather reads; a copy only where needed."""
    array = np.asarray(as_numbers("Trainer", what, x))
    if array.ndim == 0:
        raise ValueError(f"[Trainer] {what} must have a batch axis, got a scalar")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.name not in NATIVE_DTYPES:
        array = array.astype(dtype)
    if array.size and array.ndim > 1 and not array[0].flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if array.ndim == 1 and array.size > 1 and array.strides[0] == 0:
        array = np.ascontiguousarray(array)
    return array


def bind(
    given: Any,
    names: Sequence[str],
    loss: Loss,
    dtype: str,
    *,
    slots: Sequence[int],
    order: Sequence[str] | None = None,
) -> Bound:
    """The fields ``names``, the last of which are the targets, of equally many samples.

    ``given`` is a mapping of arrays by name, arrays in the order of the names, or a loader's ``Fields``, which are in this
    ``order`` if they have names. Arrays will be fed in any order: they take the ``slots`` that a loader had before them.
    """
    looks = getattr(given, "looks", None)
    feed: Fields | None = None if looks is None else given
    if isinstance(given, Mapping):
        given = tuple(given[name] for name in names)
    if looks is not None:
        slots = range(len(names)) if order is None else tuple(map(list(order).index, names))
        given = tuple(Look(*looks[slot]) for slot in slots) if len(looks) == len(names) else ()
    if not isinstance(given, (tuple, list)) or len(given) != len(names):
        raise TypeError(f"[Trainer] a batch must have the fields {_listed(names)}")
    fields = list(given)
    if looks is None:
        fields = [rows_contiguous(array, name, dtype) for name, array in zip(names, given, strict=True)]
    copied = looks is None and any(a is not b for a, b in zip(fields, given, strict=True))
    first = fields[0]
    for name, field in zip(names, fields, strict=True):
        if len(field) != len(first):
            raise ValueError(f"[Trainer] {names[0]} has {len(first)} samples, {name} has {len(field)}: must be equal")
    for name, field in zip(names[:-1], fields, strict=False):
        if len(field) == 0:
            raise ValueError(f"[Trainer] {name} is {field.shape}: must have at least one sample")
        if field.size == 0:
            raise ValueError(f"[Trainer] {name} is {field.shape}: a sample must have at least one element")
    fields[-1] = loss.targets(fields[-1])
    return Bound(tuple(fields), tuple(slots), feed, copied)


def _listed(names: Sequence[str]) -> str:
    return f"({', '.join(names)})"


def check_target(wanted: tuple[int, ...], y: Array | Look, loss: Loss) -> None:
    """``y`` has rows of the target's shape."""
    if y.shape[1:] != wanted[1:]:
        raise ValueError(
            f"[{loss.kind}] y is {y.shape}, the model gives {wanted} for a batch of {wanted[0]}: "
            f"y must be (samples, {', '.join(map(str, wanted[1:]))})"
        )
