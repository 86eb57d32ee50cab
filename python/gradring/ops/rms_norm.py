"""rms_norm and its vjp."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["rms_norm", "rms_norm_vjp"]


@eager("rms_norm")
def rms_norm(x: ArrayLike, weight: ArrayLike | None = None, *, eps: float = 1e-6, out: Array | None = None) -> Array:
    """``x / sqrt(mean(x ** 2) + eps) * weight``, with the mean of each row.

    A row is what lies along the last axis (Zhang and Sennrich, arXiv:1910.07467). Each row is read from memory once.

    Args:
        x: (..., n); float32 or float64, any strides.
        weight: (n,), or None for ones.
        eps: at least 0.
        out: where to write the result, as x; may be x.

    Returns:
        ``out`` if given, else a new array, as x. The same bits for any number of threads.

    Raises:
        ValueError: a weight that does not have one number for each element of a row.
        TypeError: dtypes that differ or are neither float32 nor float64.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.rms_norm(np.array([[1.0, 7.0], [10.0, 70.0]]), eps=0.0).round(6).tolist()
    [[0.2, 1.4], [0.2, 1.4]]
    """
    raise NotImplementedError


@eager("rms_norm_vjp", results=("dx", "dweight"))
def rms_norm_vjp(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    eps: float = 1e-6,
    out: tuple[Array | None, Array | None] | None = None,
) -> tuple[Array, Array]:
    """The gradients of rms_norm by its input and its weight.

    Args:
        dy: the gradient by the output, (..., n); float32 or float64, any strides.
        x: the input of rms_norm; shape and dtype as dy.
        weight: (n,), or None for ones.
        eps: as it was given to rms_norm.
        out: (dx, dweight), arrays to write to; None in a place makes a new array. dx may be dy or x.

    Returns:
        dx, as x; dweight, (n,). The same bits for any number of threads.

    >>> import numpy as np, gradring as gr
    >>> dx, dweight = gr.ops.rms_norm_vjp(np.ones((2, 2)), np.array([[1.0, 1.0], [2.0, 2.0]]), eps=0.0)
    >>> dx.tolist(), dweight.tolist()
    ([[0.0, 0.0], [0.0, 0.0]], [2.0, 2.0])
    """
    raise NotImplementedError
