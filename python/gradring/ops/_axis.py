"""Row-wise operations along another axis than the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradring.arrays import as_ndarray

Array = np.ndarray[Any, Any]


def with_axis_last(function: Callable[..., Any], operands: list[Any], axis: int, out: Any) -> Array:
    """Run a function of ``gradring.ops`` on views whose last axis is ``axis``; the result has the operands' layout."""
    op = function.__name__
    moved = [np.moveaxis(as_ndarray(op, f"operand {n}", operand), axis, -1) for n, operand in enumerate(operands)]
    if out is None:
        result: Array = np.moveaxis(function(*moved), -1, axis)
        return result
    if not isinstance(out, np.ndarray):
        raise TypeError(f"[{op}] out is a {type(out).__name__}: must be a numpy.ndarray, because it is written to")
    if out.shape != np.shape(operands[0]):
        raise ValueError(f"[{op}] out is {out.shape}: must be {np.shape(operands[0])}")
    function(*moved, out=np.moveaxis(out, axis, -1))
    return out
