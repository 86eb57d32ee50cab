"""softmax and log_softmax, and their vjps."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["log_softmax", "log_softmax_vjp", "softmax", "softmax_vjp"]


@eager("softmax", presets={"logarithm": False})
def softmax(x: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """``exp(x) / sum(exp(x))`` along an axis, computed on ``x - max(x)``, so that it never overflows.

    Args:
        x: float32 or float64, one dimension or more.
        axis: the axis of the sum; the last is the fastest.
        out: where to write the result, as x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.softmax(np.zeros((1, 4), np.float32)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    raise NotImplementedError


@eager("softmax_vjp", results=("dx",), presets={"logarithm": False})
def softmax_vjp(dy: ArrayLike, y: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """``y * (dy - sum(dy * y))``: the gradient of softmax by its input.

    Args:
        dy: the gradient by the output.
        y: the output of softmax; shape and dtype as dy.
        axis: as it was given to softmax.
        out: where to write the result, as dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.softmax_vjp(np.array([[1, 0, 0, 0]], np.float32), np.full((1, 4), 0.25, np.float32)).tolist()
    [[0.1875, -0.0625, -0.0625, -0.0625]]
    """
    raise NotImplementedError


@eager("softmax", presets={"logarithm": True})
def log_softmax(x: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """``x - log(sum(exp(x)))`` along an axis, computed on ``x - max(x)``, so that it never overflows.

    Args:
        x: float32 or float64, one dimension or more.
        axis: the axis of the sum; the last is the fastest.
        out: where to write the result, as x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.log_softmax(np.zeros((2, 1), np.float32)).tolist()
    [[0.0], [0.0]]
    """
    raise NotImplementedError


@eager("softmax_vjp", results=("dx",), presets={"logarithm": True})
def log_softmax_vjp(dy: ArrayLike, y: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """``dy - exp(y) * sum(dy)``: the gradient of log_softmax by its input.

    Args:
        dy: the gradient by the output.
        y: the output of log_softmax; shape and dtype as dy.
        axis: as it was given to log_softmax.
        out: where to write the result, as dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.log_softmax_vjp(np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)).tolist()
    [[0.0], [0.0]]
    """
    raise NotImplementedError
