"""Arrays in all memory layouts that NumPy has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradring import _core

Array = np.ndarray[Any, Any]
ISAS = ("base", "avx2", "avx512")
LAYOUTS = ("plain", "fortran", "padded", "every other", "reversed", "repeated", "read-only", "offset")
FLOATS = (np.float32, np.float64)
shapes = st.one_of(
    st.tuples(st.integers(0, 70)),
    st.tuples(st.integers(0, 9), st.integers(0, 70)),
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 20)),
)


def laid_out(values: Array, layout: str) -> Array:
    """The same values, except for "repeated" (the first row everywhere), in a memory layout."""
    if layout == "fortran":
        return np.asfortranarray(values)
    if layout == "padded" or layout == "every other":
        step = 2 if layout == "every other" else 1
        room = np.full((*values.shape[:-1], values.shape[-1] * step + 3), 77, values.dtype)
        view = room[..., 1 : 1 + values.shape[-1] * step : step]
        view[...] = values
        return view
    if layout == "reversed":
        return np.ascontiguousarray(values[..., ::-1])[..., ::-1]
    if layout == "repeated":
        return np.broadcast_to(values[:1], values.shape)
    if layout == "read-only":
        values = values.copy()
        values.flags.writeable = False
        return values
    if layout == "offset":
        room = np.empty(values.size + 1, values.dtype)
        view = room[1:].reshape(values.shape)
        view[...] = values
        return view
    return values


def log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return result


@contextmanager
def isa(name: str) -> Iterator[bool]:
    """Kernels run at this level inside; False where the processor lacks it."""
    before = _core.active_isa()
    try:
        yield _core.set_isa(name)
    finally:
        _core.set_isa(before)
