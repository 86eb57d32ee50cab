"""Functions that the native operations call for arguments that are not plain NumPy arrays, and in other rare cases."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradring import _core
from gradring.arguments import flag, plain
from gradring.arrays import as_ndarray
from gradring.ir import NARROW

_KNOWN = frozenset(np.dtype(code) for code in "?bBhHiIlLqQefd")
_LABELS = "int32, int64 or uint8"


def learn_bfloat16() -> np.dtype[Any]:
    """NumPy's dtype bfloat16, which native code knows from then on."""
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise TypeError("[dtype] NumPy has bfloat16 with the package ml_dtypes: pip install ml_dtypes") from None
    dtype: np.dtype[Any] = np.dtype(bfloat16)
    _core.set_bfloat16(dtype)
    return dtype


def dtype_name(op: str, argument: str, value: Any) -> str:
    """The name of the dtype that ``numpy.dtype`` makes from a value; "" if it refuses the value."""
    try:
        return str(np.dtype(value).name)
    except TypeError:
        return ""


def flag_value(op: str, argument: str, value: Any) -> bool:
    """A flag that is not Python's own ``True`` or ``False``: NumPy's bool, 0 or 1. Raises TypeError for anything else."""
    given = plain(value)
    return given == 1 if type(given) is int and given in (0, 1) else flag(op, argument, given)


def as_array(op: str, argument: str, value: Any) -> np.ndarray[Any, Any]:
    """A plain, aligned, native-endian ndarray of a dtype that kernels have, without a copy where possible.

    Accepts what ``gradring.arrays`` does. Raises TypeError otherwise.
    """
    array = as_ndarray(op, argument, value)
    dtype = array.dtype.newbyteorder("=")
    if dtype.name == "bfloat16":
        dtype = learn_bfloat16()
    elif dtype not in _KNOWN:
        accepted = _LABELS if argument in ("labels", "ids") else "float32 or float64"
        raise TypeError(f"[{op}] {argument} is of dtype {array.dtype}: must be {accepted}; convert it with .astype")
    made: np.ndarray[Any, Any] = np.require(array, dtype=dtype, requirements=["A"]).view(np.ndarray)
    return made


def result_dtype(op: str, argument: str, dtype: np.dtype[Any], named: Any, out: Any) -> np.dtype[Any]:
    """The dtype of a product whose inputs have this dtype: the named one or that of ``out`` where a product may have it."""
    half = dtype.name in NARROW
    if named is None:
        wide = half and isinstance(out, np.ndarray) and out.dtype == np.float32
        return np.dtype(np.float32) if wide else dtype
    name = dtype_name(op, "dtype", named)
    if name == dtype.name:
        return dtype
    if half and name and np.dtype(name) == np.float32:
        return np.dtype(np.float32)
    must = f"{dtype.name} or float32" if half else dtype.name
    raise TypeError(f"[{op}] dtype is {name or named}, {argument} is {dtype.name}: must be {must}")


def may_share(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    """Whether the arrays share an element; True if that takes too long to find out."""
    try:
        limit: Any = 10_000  # NumPy's stubs allow only -1 and 0
        return np.shares_memory(first, second, max_work=limit)
    except (np.exceptions.TooHardError, np.exceptions.AxisError):
        return True
