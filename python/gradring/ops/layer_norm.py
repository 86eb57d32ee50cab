"""layer_norm and its vjp."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["layer_norm", "layer_norm_vjp"]


@eager("layer_norm")
def layer_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """``(x - mean) / sqrt(variance + eps) * weight + bias``, with the mean and variance of each row.

    A row is what lies along the last axis; its variance is the mean of the squared differences (Ba, Kiros and Hinton,
    arXiv:1607.06450). Each row is read from memory once.

    Args:
        x: (..., n); float32 or float64, any strides.
        weight: (n,), or None for ones.
        bias: (n,), or None for zeros.
        eps: at least 0.
        out: where to write the result, as x; may be x.

    Returns:
        ``out`` if given, else a new array, as x. The same bits for any number of threads.

    Raises:
        ValueError: a weight or bias that does not have one number for each element of a row.
        TypeError: dtypes that differ or are neither float32 nor float64.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]), eps=0.0).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    raise NotImplementedError


@eager("layer_norm_vjp", results=("dx", "dweight", "dbias"))
def layer_norm_vjp(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of layer_norm by its input, its weight and its bias.

    Args:
        dy: the gradient by the output, (..., n); float32 or float64, any strides.
        x: the input of layer_norm; shape and dtype as dy.
        weight: (n,), or None for ones.
        eps: as it was given to layer_norm.
        out: (dx, dweight, dbias), arrays to write to; None in a place makes a new array. dx may be dy or x.

    Returns:
        dx, as x; dweight and dbias, (n,). The same bits for any number of threads.

    >>> import numpy as np, gradring as gr
    >>> dx, dweight, dbias = gr.ops.layer_norm_vjp(np.ones((2, 2)), np.array([[1.0, 3.0], [10.0, 30.0]]), eps=0.0)
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[0.0, 0.0], [0.0, 0.0]], [-2.0, 2.0], [2.0, 2.0])
    """
    raise NotImplementedError
