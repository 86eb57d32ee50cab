"""layer_norm and its vjp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import DY, Derivative, declare
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

    A row is the elements along the last axis; its variance is the mean of the squared differences (Ba, Kiros and
    Hinton, arXiv:1607.06450). Each row is read from memory once.

    Args:
        x: (..., n); float32 or float64, any strides.
        weight: (n,), or None for ones.
        bias: (n,), or None for zeros.
        eps: at least 0.
        out: where to write the result, an array like x; may be x.

    Returns:
        ``out`` if given, else a new array like x. The same bits for any number of threads.

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
        dy: the gradient with respect to the output, (..., n); float32 or float64, any strides.
        x: the input of layer_norm; the shape and dtype of dy.
        weight: (n,), or None for ones.
        eps: the same as for layer_norm.
        out: (dx, dweight, dbias), arrays to write to; None in a place makes a new array. dx may be dy or x.

    Returns:
        dx, like x; dweight and dbias, (n,). The same bits for any number of threads.

    >>> import numpy as np, gradring as gr
    >>> dx, dweight, dbias = gr.ops.layer_norm_vjp(np.ones((2, 2)), np.array([[1.0, 3.0], [10.0, 30.0]]), eps=0.0)
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[0.0, 0.0], [0.0, 0.0]], [-2.0, 2.0], [2.0, 2.0])
    """
    raise NotImplementedError


def _normalized(x: Array, eps: float) -> tuple[Any, Any]:
    scale = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return (x - x.mean(axis=-1, keepdims=True)) * scale, scale


def _reference(x: Array, weight: Any = 1, bias: Any = 0, *, eps: float) -> Mapping[str, Any]:
    return {"y": _normalized(x, eps)[0] * weight + bias}


def _reference_vjp(dy: Array, x: Array, weight: Any = 1, *, eps: float) -> Mapping[str, Any]:
    hat, scale = _normalized(x, eps)
    g = dy * weight
    dx = (g - g.mean(axis=-1, keepdims=True) - hat * (g * hat).mean(axis=-1, keepdims=True)) * scale
    axes = tuple(range(x.ndim - 1))
    return {"dx": dx, "dweight": (dy * hat).sum(axis=axes), "dbias": dy.sum(axis=axes)}


def _torch(x: Any, weight: Any = None, bias: Any = None, *, eps: float) -> Mapping[str, Any]:
    import torch

    return {"y": torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    weight, bias = rng.standard_normal((2, 19))
    yield {"x": rng.standard_normal((rows, 19)), "weight": weight, "bias": bias, "eps": 1e-3}
    yield {"x": rng.standard_normal((2, rows, 5))}


def _samples_vjp(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for sample in _samples(rng, rows):
        sample.pop("bias", None)
        yield {"dy": rng.standard_normal(sample["x"].shape), **sample}


declare(
    "layer_norm",
    reference=_reference,
    samples=_samples,
    torch=_torch,
    derivative=Derivative(
        "layer_norm_vjp",
        {"dy": DY, "x": "x", "weight": "weight"},
        {"x": "dx", "weight": "dweight", "bias": "dbias"},
    ),
)
declare("layer_norm_vjp", reference=_reference_vjp, samples=_samples_vjp, tolerance=400)
