"""The dtypes of arrays on a device, as DLPack and ``__cuda_array_interface__`` write them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["dlpack_code", "from_dlpack_code", "from_typestr", "numbers"]

_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}
_BFLOAT = 4


def _bfloat16() -> np.dtype[Any]:
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise TypeError("[from_dlpack] NumPy has bfloat16 with the package ml_dtypes: pip install ml_dtypes") from None
    dtype: np.dtype[Any] = np.dtype(bfloat16)
    return dtype


def dlpack_code(dtype: np.dtype[Any]) -> tuple[int, int]:
    """DLPack's code and number of bits of a dtype."""
    if dtype.name == "bfloat16":
        return _BFLOAT, 16
    if dtype.kind not in _CODES or not dtype.isnative:
        raise BufferError(f"[__dlpack__] the array is of dtype {dtype}, which DLPack has no code for")
    return _CODES[dtype.kind], dtype.itemsize * 8


def from_dlpack_code(code: int, bits: int, lanes: int) -> np.dtype[Any]:
    """The dtype of a tensor."""
    if lanes == 1 and code == _BFLOAT and bits == 16:
        return _bfloat16()
    if lanes == 1 and code in _KINDS and bits % 8 == 0:
        try:
            return np.dtype("?" if _KINDS[code] == "b" else f"{_KINDS[code]}{bits // 8}")
        except TypeError:
            pass
    raise TypeError(
        f"[from_dlpack] the tensor is of DLPack's dtype (code {code}, {bits} bits, {lanes} lanes): NumPy has none"
    )


def from_typestr(argument: str, typestr: Any) -> np.dtype[Any]:
    """The dtype of an array interface."""
    what = f"[{argument}] typestr is {typestr!r}"
    try:
        dtype = np.dtype(typestr)
    except TypeError:
        raise TypeError(f"{what}: must be a dtype of NumPy") from None
    return numbers(what, dtype)


def numbers(what: str, dtype: DTypeLike) -> np.dtype[Any]:
    """A dtype of numbers. Errors begin with ``what``."""
    found: np.dtype[Any] = np.dtype(dtype)
    if (found.kind not in "biufc" and found.name != "bfloat16") or not found.isnative:
        raise TypeError(f"{what}: must be numbers in this machine's byte order")
    return found
