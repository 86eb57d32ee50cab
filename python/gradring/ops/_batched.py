"""matmul and linear on other than two dimensions, by NumPy's rules, through the native functions on matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradring import _core

Array = np.ndarray[Any, Any]


def matmul(a: Array, b: Array, trans_a: bool, trans_b: bool, out: Array | None) -> Array:
    """Products of the last two axes; the axes before them broadcast. A vector counts as one row or column."""
    for name, array in (("a", a), ("b", b)):
        if array.ndim == 0:
            raise ValueError(f"[matmul] {name} is a scalar: must have at least one dimension")
    left = a[np.newaxis, :] if a.ndim == 1 else a.swapaxes(-1, -2) if trans_a else a
    right = b[:, np.newaxis] if b.ndim == 1 else b.swapaxes(-1, -2) if trans_b else b
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(f"[matmul] a is {a.shape}, b is {b.shape}: inner dimensions differ")
    try:
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise ValueError(f"[matmul] a is {a.shape}, b is {b.shape}: leading dimensions do not broadcast") from None
    rows = () if a.ndim == 1 else (left.shape[-2],)
    columns = () if b.ndim == 1 else (right.shape[-1],)
    shape = (*batch, *rows, *columns)
    if out is None:
        out = np.empty(shape, a.dtype)
    elif not isinstance(out, np.ndarray) or out.dtype != a.dtype:
        raise TypeError(f"[matmul] out must be an array of {a.dtype}, as the inputs are")
    elif out.shape != shape:
        raise ValueError(f"[matmul] out is {out.shape}: must be {shape}")
    full = out.reshape(*batch, left.shape[-2], right.shape[-1]) if out.flags.c_contiguous else None
    target = np.empty((*batch, left.shape[-2], right.shape[-1]), a.dtype) if full is None else full
    left = np.broadcast_to(left, (*batch, *left.shape[-2:]))
    right = np.broadcast_to(right, (*batch, *right.shape[-2:]))
    for index in np.ndindex(*batch):
        _core.matmul(left[index], right[index], out=target[index])
    if full is None:
        out[...] = target.reshape(shape)
    return out


def linear(x: Array, w: Array, b: Any, activation: str | None, out: Array | None, pre: Array | None) -> Array:
    """linear with any number of leading dimensions: they are flattened and restored."""
    if x.ndim == 0 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"[linear] w is {w.shape}, x is {x.shape}: x.shape[-1] must be {w.shape[0]}")
    shape = (*x.shape[:-1], w.shape[1])
    rows = math.prod(shape[:-1])
    flat: dict[str, Array] = {}
    for name, array in (("out", out), ("pre", pre)):
        if array is None:
            continue
        if not isinstance(array, np.ndarray) or array.shape != shape or not array.flags.c_contiguous:
            raise ValueError(f"[linear] {name} must be a C-contiguous array of shape {shape}")
        flat[name] = array.reshape(rows, shape[-1])
    result = _core.linear(x.reshape(rows, x.shape[-1]), w, b, activation=activation, **flat)
    return result.reshape(shape) if out is None else out
