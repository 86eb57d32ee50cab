"""batch_norm and its vjp."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["batch_norm", "batch_norm_vjp"]


@eager("batch_norm")
def batch_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """``(x - mean) / sqrt(variance + eps) * weight + bias``, with one mean and one variance per column.

    In training they are those of the batch (Ioffe and Szegedy, arXiv:1502.03167), and the running moments, if they are
    given, move towards them in place: ``running = (1 - momentum) * running + momentum * batch``, where the batch's variance
    is the unbiased one, as in PyTorch. Otherwise columns are normalized by the running moments, which stay as they are.

    Args:
        x: (N, C); float32 or float64, any strides. Training needs at least 2 rows, or none.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        running_mean, running_var: (C,), writable; may be None in training.
        training: whether to normalize by the batch's own moments.
        momentum: the weight of the batch in the running moments, in [0, 1].
        eps: at least 0.
        out: where to write the result, as x; may be x.

    Returns:
        ``out`` if given, else a new array, as x. The same bits for any number of threads.

    Raises:
        ValueError: a vector that does not have one number per column; a batch of one row in training; no running moments
            without training.
        TypeError: dtypes that differ or are neither float32 nor float64.

    >>> import numpy as np, gradring as gr
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> gr.ops.batch_norm(x, None, None, mean, var, training=True, eps=0.0).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    >>> mean.round(6).tolist(), var.round(6).tolist()
    ([0.2, 2.0], [1.1, 20.9])
    """
    raise NotImplementedError


@eager("batch_norm_vjp", results=("dx", "dweight", "dbias"))
def batch_norm_vjp(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike | None = None,
    mean: ArrayLike | None = None,
    variance: ArrayLike | None = None,
    *,
    training: bool,
    eps: float = 1e-5,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of batch_norm by its input, its weight and its bias.

    Args:
        dy: the gradient by the output, (N, C); float32 or float64, any strides.
        x: the input of batch_norm; shape and dtype as dy.
        weight: (C,), or None for ones.
        mean, variance: (C,), those that batch_norm used: the running ones, or in training the batch's (the variance
            without Bessel's correction); in training both may be None, and are computed again.
        training: as it was given to batch_norm.
        eps: as it was given to batch_norm.
        out: (dx, dweight, dbias), arrays to write to; None in a place makes a new array. dx may be dy or x.

    Returns:
        dx, as x; dweight and dbias, (C,). The same bits for any number of threads.

    >>> import numpy as np, gradring as gr
    >>> dx, dweight, dbias = gr.ops.batch_norm_vjp(np.eye(2), np.array([[1.0, 10.0], [3.0, 30.0]]), training=True, eps=0.0)
    >>> bool(np.abs(dx).max() < 1e-12), dweight.tolist(), dbias.tolist()
    (True, [-1.0, 1.0], [1.0, 1.0])
    """
    raise NotImplementedError
