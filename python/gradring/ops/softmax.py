"""softmax and log_softmax, and their vjps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import DY, Derivative, declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["log_softmax", "log_softmax_vjp", "softmax", "softmax_vjp"]


@eager("softmax", presets={"logarithm": False})
def softmax(x: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """``exp(x) / sum(exp(x))`` along an axis, computed on ``x - max(x)``, so that it never overflows.

    Args:
        x: float32 or float64, one dimension or more.
        axis: the axis of the sum; the last is the fastest.
        out: where to write the result, an array like x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.softmax(np.zeros((1, 4), np.float32)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    raise NotImplementedError


@eager("softmax_vjp", results=("dx",), presets={"logarithm": False})
def softmax_vjp(dy: ArrayLike, y: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """``y * (dy - sum(dy * y))``: the gradient of softmax by its input.

    Args:
        dy: the gradient with respect to the output.
        y: the output of softmax; the shape and dtype of dy.
        axis: the same as for softmax.
        out: where to write the result, an array like dy; may be dy.

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
        out: where to write the result, an array like x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.log_softmax(np.zeros((2, 1), np.float32)).tolist()
    [[0.0], [0.0]]
    """
    raise NotImplementedError


@eager("softmax_vjp", results=("dx",), presets={"logarithm": True})
def log_softmax_vjp(dy: ArrayLike, y: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """``dy - exp(y) * sum(dy)``: the gradient of log_softmax by its input.

    Args:
        dy: the gradient with respect to the output.
        y: the output of log_softmax; the shape and dtype of dy.
        axis: the same as for log_softmax.
        out: where to write the result, an array like dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.log_softmax_vjp(np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)).tolist()
    [[0.0], [0.0]]
    """
    raise NotImplementedError


def _logarithm(x: Array) -> Any:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _reference(x: Array, *, logarithm: bool) -> Mapping[str, Any]:
    logs = _logarithm(x)
    return {"y": logs if logarithm else np.exp(logs)}


def _reference_vjp(dy: Array, y: Array, *, logarithm: bool) -> Mapping[str, Any]:
    if logarithm:
        return {"dx": dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)}
    return {"dx": y * (dy - (dy * y).sum(axis=-1, keepdims=True))}


def _torch(x: Any, *, logarithm: bool) -> Mapping[str, Any]:
    import torch

    return {"y": torch.log_softmax(x, -1) if logarithm else torch.softmax(x, -1)}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for logarithm in (False, True):
        yield {"x": rng.standard_normal((rows, 19)) * 3, "logarithm": logarithm}
        yield {"x": rng.standard_normal((rows, 2, 1)), "logarithm": logarithm}


def _samples_vjp(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for sample in _samples(rng, rows):
        dy = rng.standard_normal(sample["x"].shape)
        yield {"dy": dy, "logarithm": sample["logarithm"], **_reference(**sample)}


declare(
    "softmax",
    reference=_reference,
    samples=_samples,
    torch=_torch,
    derivative=Derivative("softmax_vjp", {"dy": DY, "y": "y"}, {"x": "dx"}),
)
declare("softmax_vjp", reference=_reference_vjp, samples=_samples_vjp)
