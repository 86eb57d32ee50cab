"""The one conversion of users' arrays, frames and lists to NumPy arrays. Every entry point goes through here."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NATIVE_DTYPES", "as_ndarray", "as_numbers", "is_array_like"]

# The dtypes that native code reads as numbers (csrc/runtime/dtype.h).
NATIVE_DTYPES = frozenset(
    ["float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)

_EXPECTED = "an array (NumPy, anything with __array__ or DLPack, a DataFrame or Series, a list of numbers)"


def as_ndarray(where: str, argument: str, value: Any, *, expected: str = _EXPECTED) -> NDArray[Any]:
    """Convert to an ndarray of any dtype but object, without a copy if ``value`` has such memory already.

    Accepts ndarrays and their subclasses, ``__array_interface__``, ``__array__``, buffers and DLPack in CPU memory,
    tensors that require gradients, numeric DataFrames and Series, and lists of numbers or of arrays of equal shape.
    Raises ``TypeError`` or ``ValueError`` that says what to do for sparse matrices, ragged lists, tuples of arrays, bytes,
    object arrays, masked arrays, and subclasses with an ``__array_ufunc__`` of their own.

    >>> as_ndarray("predict", "x", [[1, 2], [3, 4]]).shape
    (2, 2)
    """
    label = f"[{where}] {argument}"
    if type(value) is not np.ndarray:
        value = _converted(where, argument, value, expected)
    array: NDArray[Any] = value
    if array.dtype.hasobject and array.dtype.names is None:
        raise TypeError(f"{label} has dtype object: convert it to numbers, for example with .astype(numpy.float32)")
    return array


def as_numbers(where: str, argument: str, value: Any) -> NDArray[Any]:
    """Convert as ``as_ndarray`` does, and check that the dtype is one that training uses or casts: bools, integers,
    floats."""
    array = as_ndarray(where, argument, value)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"[{where}] {argument} must be numbers, got dtype {array.dtype}{_advice(array.dtype)}")
    return array


def is_array_like(value: Any) -> bool:
    """Whether a value is one array, and not a collection of samples or batches."""
    looks = (
        "__array__",
        "__array_interface__",
        "__cuda_array_interface__",
        "__dlpack__",
        "to_numpy",
        "toarray",
        "todense",
    )
    return any(_has(value, name) for name in looks)


def _advice(dtype: np.dtype[Any]) -> str:
    return {
        "c": ": give its real and imaginary parts",
        "M": ": give a difference to some date, as a number",
        "m": ": divide it by a unit of time",
        "U": ": encode it as numbers, labels for example with numpy.unique(labels, return_inverse=True)",
        "S": ": encode it as numbers, labels for example with numpy.unique(labels, return_inverse=True)",
        "V": ": give its fields one by one",
    }.get(dtype.kind, "")


def _converted(where: str, argument: str, value: Any, expected: str) -> NDArray[Any]:
    label, kind = f"[{where}] {argument}", type(value).__name__
    if isinstance(value, np.ndarray):
        return _subclass(label, value)
    if isinstance(value, (numbers.Number, np.generic)):
        return np.asarray(value)
    if isinstance(value, (list, tuple)):
        return _stacked(where, argument, value, expected)
    if isinstance(value, (str, bytes, bytearray, dict, set, frozenset)) or value is None:
        raise TypeError(f"{label} is a {kind}: expected {expected}")
    if hasattr(value, "detach"):  # PyTorch refuses the memory of a tensor that autograd records.
        value = _tensor(label, value)
    if _has(value, "__cuda_array_interface__"):
        raise TypeError(
            f"{label} is a CUDA array ({kind}): this reads arrays of the host; copy it there, with .numpy() or .get()"
        )
    if hasattr(value, "nnz") and (hasattr(value, "toarray") or hasattr(value, "todense")):
        dense = "toarray" if hasattr(value, "toarray") else "todense"
        raise TypeError(f"{label} is a sparse {kind}: give {argument}.{dense}(), a batch at a time if it is large")
    if hasattr(value, "collect_schema") and hasattr(value, "collect") and not hasattr(value, "to_numpy"):
        raise TypeError(f"{label} is a {kind}, whose rows are not computed yet: give {argument}.collect()")
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        return _frame(label, value)
    if hasattr(value, "to_numpy") and hasattr(value, "dtype"):
        return _series(label, value)
    if getattr(type(value), "__array_ufunc__", _nothing) is None:
        raise TypeError(f"{label} is a {kind}, which refuses NumPy's functions (__array_ufunc__ = None)")
    try:
        if any(_has(value, name) for name in ("__array__", "__array_interface__", "__array_struct__")):
            return _subclass(label, np.asanyarray(value))
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        if isinstance(value, range):
            return np.arange(value.start, value.stop, value.step)
        return np.asarray(memoryview(value))
    except (TypeError, AttributeError, BufferError, RuntimeError, ValueError) as error:
        cannot = any(_has(value, name) for name in ("__array__", "__array_interface__", "__dlpack__"))
        reason = f" ({kind}) cannot be read: {error}" if cannot else f" is a {kind}: expected {expected}"
        raise TypeError(label + reason) from error


def _nothing() -> None:
    """Stands for a missing attribute."""


def _has(value: Any, name: str) -> bool:
    """``hasattr`` for objects whose properties may raise any exception, as PyTorch's do."""
    try:
        return hasattr(value, name)
    except Exception:
        return False


def _subclass(label: str, array: NDArray[Any]) -> NDArray[Any]:
    kind = type(array).__name__
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{label} is a {kind}, which hides values: replace them with .filled(value)")
    if type(array).__array_ufunc__ is not np.ndarray.__array_ufunc__:
        raise TypeError(
            f"{label} is a {kind}, which computes by rules of its own (__array_ufunc__): give its plain numbers, "
            "numpy.asarray(...), if these are what is meant"
        )
    return array


def _tensor(label: str, value: Any) -> Any:
    value = value.detach()
    if str(getattr(value, "layout", "torch.strided")) != "torch.strided":
        raise TypeError(f"{label} is a sparse {type(value).__name__}: give its .to_dense()")
    for lazily in ("resolve_conj", "resolve_neg"):
        value = getattr(value, lazily)() if hasattr(value, lazily) else value
    return value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value


def _frame(label: str, frame: Any) -> NDArray[Any]:
    """Convert a DataFrame to an array of its columns, if all are numbers."""
    whole = np.asarray(frame.to_numpy())
    # If other columns have numbers, polars converts dates to numbers.
    stand = any(getattr(dtype, "is_temporal", bool)() for dtype in getattr(frame, "schema", {}).values())
    if whole.dtype.kind in "fiub" and not stand:
        return whole
    if hasattr(frame, "iloc"):
        columns = [(name, frame.iloc[:, number]) for number, name in enumerate(frame.columns)]
    elif hasattr(frame, "get_columns"):
        columns = [(column.name, column) for column in frame.get_columns()]
    else:
        raise TypeError(f"{label} is a {type(frame).__name__} of dtype {whole.dtype}: must hold only numbers")
    return np.column_stack([_series(f"{label}: column {name!r}", column) for name, column in columns])


def _series(label: str, series: Any) -> NDArray[Any]:
    array = np.asarray(series.to_numpy())
    if array.dtype.kind == "O" and getattr(series.dtype, "kind", "O") in "fiub":
        # In a nullable column of numbers, missing values become NaN.
        array = series.to_numpy(dtype="float64", na_value=np.nan)
    elif array.dtype.kind == "O" and str(series.dtype) == "Boolean":  # polars: likewise
        array = series.cast(float).to_numpy()
    if array.dtype.kind not in "fiub":
        polars = hasattr(series, "to_physical")
        ways = "to_dummies, to_physical" if polars else "pandas: get_dummies, astype('category').cat.codes"
        raise TypeError(f"{label} has dtype {series.dtype}: must be numbers; leave it out, or encode it ({ways})")
    return array


def _stacked(where: str, argument: str, value: Any, expected: str) -> NDArray[Any]:
    leaf = value
    while isinstance(leaf, (list, tuple)) and leaf:
        leaf = leaf[0]
    label = f"[{where}] {argument}"
    if isinstance(value, tuple) and len(getattr(leaf, "shape", ())):
        raise TypeError(
            f"{label} is a tuple of {len(value)} arrays, which are fields and not rows: give one array (numpy.stack makes "
            "one of several), and the fields of a batch side by side, (x, y), or in a dict by name"
        )
    if isinstance(leaf, (str, bytes)):
        raise TypeError(f"{label} is a {type(value).__name__} of {type(leaf).__name__}: expected {expected}")
    try:
        if isinstance(leaf, (numbers.Number, np.generic, list, tuple)):
            array = np.asarray(value)
        else:
            array = np.stack([as_ndarray(where, f"{argument}[{i}]", part) for i, part in enumerate(value)])
    except (ValueError, TypeError) as error:
        if str(error).startswith(f"[{where}]"):
            raise
        raise ValueError(
            f"{label} is ragged: its parts must have equal shapes; pad or cut them to one length ({error})"
        ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{label} is a {type(value).__name__} that is not all numbers: expected {expected}")
    return array
