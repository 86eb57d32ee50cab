"""matmul on stacks of matrices and on vectors, by numpy.matmul's rules: a loop over the native product."""

from __future__ import annotations

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
