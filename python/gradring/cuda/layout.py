"""Where the elements of an array on a device lie: strides of views, and the memory between them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

__all__ = ["broadcast", "dense_strides", "may_share", "part", "span", "steps_over_itself"]


class Placed(Protocol):
    """What a layout needs of an array."""

    @property
    def address(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def itemsize(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def ndim(self) -> int: ...


def dense_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """The strides of an array in C order without gaps."""
    strides, step = [], itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


def broadcast(values: Placed, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides with which an assignment reads the array for a part of this shape. Raises ``ValueError`` as NumPy does."""
    if values.shape == shape:
        return values.strides
    extra = max(values.ndim - len(shape), 0)
    if any(extent != 1 for extent in values.shape[:extra]):
        extra = 0  # an assignment drops axes of one element alone
    look = np.lib.stride_tricks.as_strided(np.empty(0, values.dtype), values.shape[extra:], values.strides[extra:])
    return np.broadcast_to(look, shape).strides


def span(array: Placed) -> tuple[int, int]:
    """The addresses of its first byte, and of the one after its last."""
    reaches = [(extent - 1) * stride for extent, stride in zip(array.shape, array.strides, strict=True)]
    low, high = sum(min(reach, 0) for reach in reaches), sum(max(reach, 0) for reach in reaches)
    return array.address + low, array.address + high + array.itemsize


def may_share(a: Placed, b: Placed) -> bool:
    """Whether the memory between the first and the last byte of two arrays overlaps."""
    (a_low, a_high), (b_low, b_high) = span(a), span(b)
    return a.size > 0 and b.size > 0 and a_low < b_high and b_low < a_high


def steps_over_itself(array: Placed) -> bool:
    """Whether its strides show that no two elements are in one place: in the order of the strides, each axis steps over all
    that the axes before it reach."""
    reach = array.itemsize
    for step, extent in sorted((abs(s), e) for s, e in zip(array.strides, array.shape, strict=True) if e > 1):
        if step < reach:
            return False
        reach += (extent - 1) * step
    return True


def part(array: Placed, key: Any) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """The shape, strides and offset of a view. NumPy finds them, on an array that is never read."""
    keys = tuple(_plain(each) for each in (key if isinstance(key, tuple) else (key,)))
    if not any(each is Ellipsis for each in keys):
        keys = (*keys, Ellipsis)  # so that NumPy makes a view even of one element
    base = np.empty(0, array.dtype)
    look = np.lib.stride_tricks.as_strided(base, array.shape, array.strides)
    view = look[keys]
    begin = look.__array_interface__["data"][0]
    return view.shape, view.strides, view.__array_interface__["data"][0] - begin if view.size else 0


def _plain(key: Any) -> Any:
    """A key of a view. An integer in an array without axes becomes an int, because NumPy would copy instead of view."""
    if key is None or key is Ellipsis or isinstance(key, slice):
        return key
    is_bool = isinstance(key, bool) or "bool" in str(getattr(key, "dtype", ""))
    try:
        if not is_bool and getattr(key, "ndim", 0) == 0:
            return operator.index(key)
    except TypeError:
        pass
    raise TypeError(
        f"[cuda.Array] an index is a {type(key).__name__}: views need integers, slices, None or ...; use "
        "cupy.asarray(array) for others"
    )
