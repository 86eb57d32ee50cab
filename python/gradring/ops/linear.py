"""linear: a matrix product with bias and activation, and its vjp."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["linear", "linear_vjp"]


@eager("linear")
def linear(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    activation: str | None = None,
    out: Array | None = None,
    pre: Array | None = None,
) -> Array:
    """A dense layer in one pass: ``activation(x @ w + b)``, bias and activation applied while the product is in cache.

    Args:
        x: (N, in), float32 or float64, any strides; more leading dimensions are kept.
        w: (in, out), the same dtype.
        b: (out,), or None.
        activation: None, "relu", "gelu" (the tanh form), "silu", "tanh" or "sigmoid".
        out: where to write the result, (N, out); must not share memory with the inputs.
        pre: if given, receives ``x @ w + b``, (N, out), which the gradient of gelu and silu needs.

    Returns:
        (N, out): ``out`` if given, else a new array. The same bits for any number of threads.

    Raises:
        ValueError: shapes that do not fit, an unknown activation, an ``out`` that overlaps an input or is read-only.
        TypeError: dtypes that differ or are neither float32 nor float64.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.linear(np.ones((1, 2)), np.eye(2), np.array([-3.0, 1.0]), activation="relu").tolist()
    [[0.0, 2.0]]
    """
    raise NotImplementedError


@eager("linear_vjp", results=("dx", "dw", "db"))
def linear_vjp(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    y_or_pre: ArrayLike | None = None,
    *,
    activation: str | None = None,
    need_dx: bool = True,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array | None, Array, Array]:
    """The gradients of :func:`linear`: with ``g = dy * activation'``, ``dx = g @ w.T``, ``dw = x.T @ g``, ``db = g.sum(0)``.

    Args:
        dy: the gradient of the layer's output, (N, out), float32 or float64.
        x: the layer's input, (N, in).
        w: the layer's weight, (in, out).
        y_or_pre: with an activation, the layer's output (relu, tanh, sigmoid) or what went into the activation
            (gelu, silu; see ``linear(pre=...)``), (N, out).
        activation: as given to :func:`linear`.
        need_dx: False skips dx, as for a first layer; None is returned in its place.
        out: (dx, dw, db), arrays to write to; None in a place makes a new array.

    Returns:
        dx (N, in), dw (in, out), db (out,). The same bits for any number of threads.

    Raises:
        ValueError: shapes that do not fit, an unknown activation, a result that overlaps an input or is read-only.
        TypeError: dtypes that differ or are neither float32 nor float64.

    >>> import numpy as np, gradring as gr
    >>> dx, dw, db = gr.ops.linear_vjp(np.ones((2, 1)), np.array([[1.0], [2.0]]), np.array([[3.0]]))
    >>> dx.tolist(), dw.tolist(), db.tolist()
    ([[3.0], [3.0]], [[3.0]], [2.0])
    """
    raise NotImplementedError
