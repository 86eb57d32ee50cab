"""What the native operations call for arguments that are not plain NumPy arrays, and for rare questions."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradring.arguments import array_view

_KNOWN = frozenset(np.dtype(name) for name in ("float32", "float64", "int32", "int64", "uint8", "bool"))


def as_array(op: str, argument: str, value: Any) -> np.ndarray[Any, Any]:
    """A plain, aligned, native-endian ndarray of a dtype that kernels have, without a copy where possible.

    Accepts ndarrays and their subclasses, ``__array_interface__`` and DLPack (CPU). Raises TypeError otherwise.
    """
    array = array_view(op, argument, value)
    dtype = array.dtype.newbyteorder("=")
    if dtype not in _KNOWN:
        raise TypeError(f"[{op}] {argument} is of dtype {array.dtype}: expected {_expected()}")
    plain: np.ndarray[Any, Any] = np.require(array, dtype=dtype, requirements=["A"]).view(np.ndarray)
    return plain


def _expected() -> str:
    return ", ".join(sorted(str(dtype) for dtype in _KNOWN))


def may_share(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    """Whether the arrays share an element; True if that is too hard to tell."""
    try:
        limit: Any = 10_000  # NumPy's stubs know of -1 and 0 alone
        return np.shares_memory(first, second, max_work=limit)
    except (np.exceptions.TooHardError, np.exceptions.AxisError):
        return True
