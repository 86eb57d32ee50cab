"""What the native operations call for arguments that are not plain NumPy arrays, and for rare questions."""

from __future__ import annotations

from typing import Any

import numpy as np

_KNOWN = frozenset(np.dtype(name) for name in ("float32", "float64", "int32", "int64", "uint8", "bool"))


def as_array(op: str, argument: str, value: Any) -> np.ndarray[Any, Any]:
    """A plain, aligned, native-endian ndarray of a dtype that kernels have, without a copy where possible.

    Accepts ndarrays and their subclasses, ``__array_interface__`` and DLPack (CPU). Raises TypeError otherwise.
    """
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "__cuda_array_interface__"):
        raise TypeError(f"[{op}] {argument} is a CUDA array ({type(value).__name__}): this build computes on the CPU")
    elif hasattr(value, "__array_interface__"):
        array = np.asarray(value)
    elif hasattr(value, "__dlpack__"):
        try:
            array = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise TypeError(f"[{op}] {argument} ({type(value).__name__}) cannot be read: {error}") from error
    else:
        raise TypeError(f"[{op}] {argument} is a {type(value).__name__}: expected an array (numpy.ndarray or DLPack)")
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
