"""Arrays and numbers that a function of the user gives, of any framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.cuda import Array as DeviceArray
from gradring.cuda import is_device_array
from gradring.errors import NotBuilt

__all__ = ["as_numpy", "number_of", "rows_of", "span_of"]


def number_of(what: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise type(error)(f"[step] {what} must be one number, got {type(value).__name__}{shape}: {error}") from None


def rows_of(batch: Any) -> float:
    """The length of the batch's first axis; 1 if it has none."""
    if isinstance(batch, Mapping) and batch:
        batch = batch.get("x", next(iter(batch.values())))
    elif (isinstance(batch, tuple) and batch) or (isinstance(batch, list) and batch and hasattr(batch[0], "shape")):
        batch = batch[0]
    shape = getattr(batch, "shape", None)
    if shape is None:
        return float(len(batch)) if hasattr(batch, "__len__") and not isinstance(batch, (str, bytes)) else 1.0
    return float(shape[0]) if len(shape) > 0 and shape[0] > 0 else 1.0


def span_of(array: Any) -> tuple[int, int]:
    """The addresses that a C-contiguous array takes."""
    begin: int = array.address if isinstance(array, DeviceArray) else array.__array_interface__["data"][0]
    return begin, begin + array.nbytes


def as_numpy(label: str, value: Any) -> NDArray[Any]:
    """A NumPy view of an array of any framework, without a copy."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"[Trainer] {label} is a masked array, which hides values: replace them with .filled(value)")
    if isinstance(value, np.ndarray):
        return value
    if is_device_array(value):
        raise NotBuilt(
            f"[Trainer] {label} is on a CUDA device ({type(value).__name__}), and the parameters are in the host's memory: "
            "arrays of two places are planned; copy one of them"
        )
    if hasattr(value, "detach"):  # PyTorch refuses the memory of what autograd records
        value = value.detach()
    try:
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except (TypeError, AttributeError, BufferError, RuntimeError, ValueError) as error:
        raise TypeError(
            f"[Trainer] {label} must be an array in CPU memory, got {type(value).__name__}: {error}"
        ) from error
