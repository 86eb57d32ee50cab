"""rms_norm and its vjp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import DY, Derivative, declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["rms_norm", "rms_norm_vjp"]


@eager("rms_norm")
def rms_norm(x: ArrayLike, weight: ArrayLike | None = None, *, eps: float = 1e-6, out: Array | None = None) -> Array:
    """``x / sqrt(mean(x ** 2) + eps) * weight``, with the mean of each row.

    A row is the elements along the last axis (Zhang and Sennrich, arXiv:1910.07467). Each row is read from memory once.

    Args:
        x: (..., n); float32 or float64, any strides.
        weight: (n,), or None for ones.
        eps: at least 0.
        out: where to write the result, an array like x; may be x.

    Returns:
        ``out`` if given, else a new array like x. The same bits for any number of threads.

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
        dy: the gradient with respect to the output, (..., n); float32 or float64, any strides.
        x: the input of rms_norm; the shape and dtype of dy.
        weight: (n,), or None for ones.
        eps: the same as for rms_norm.
        out: (dx, dweight), arrays to write to; None in a place makes a new array. dx may be dy or x.

    Returns:
        dx, like x; dweight, (n,). The same bits for any number of threads.

    >>> import numpy as np, gradring as gr
    >>> dx, dweight = gr.ops.rms_norm_vjp(np.ones((2, 2)), np.array([[1.0, 1.0], [2.0, 2.0]]), eps=0.0)
    >>> dx.tolist(), dweight.tolist()
    ([[0.0, 0.0], [0.0, 0.0]], [2.0, 2.0])
    """
    raise NotImplementedError


def _scale(x: Array, eps: float) -> Any:
    return 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)


def _reference(x: Array, weight: Any = 1, *, eps: float) -> Mapping[str, Any]:
    return {"y": x * _scale(x, eps) * weight}


def _reference_vjp(dy: Array, x: Array, weight: Any = 1, *, eps: float) -> Mapping[str, Any]:
    scale = _scale(x, eps)
    hat, g = x * scale, dy * weight
    dx = (g - hat * (g * hat).mean(axis=-1, keepdims=True)) * scale
    return {"dx": dx, "dweight": (dy * hat).sum(axis=tuple(range(x.ndim - 1)))}


def _torch(x: Any, weight: Any = None, *, eps: float) -> Mapping[str, Any]:
    import torch

    return {"y": torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    yield {"x": rng.standard_normal((rows, 19)), "weight": rng.standard_normal(19), "eps": 1e-3}
    yield {"x": rng.standard_normal((2, rows, 5))}


def _samples_vjp(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for sample in _samples(rng, rows):
        yield {"dy": rng.standard_normal(sample["x"].shape), **sample}


declare(
    "rms_norm",
    reference=_reference,
    samples=_samples,
    torch=_torch,
    derivative=Derivative("rms_norm_vjp", {"dy": DY, "x": "x", "weight": "weight"}, {"x": "dx", "weight": "dweight"}),
)
declare("rms_norm_vjp", reference=_reference_vjp, samples=_samples_vjp)
