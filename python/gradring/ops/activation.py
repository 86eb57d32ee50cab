"""Activations: relu, gelu, silu, tanh and sigmoid, and their vjps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.choices import Approximate
from gradring.ops._declare import DY, Derivative, declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["gelu", "gelu_vjp", "relu", "relu_vjp", "sigmoid", "sigmoid_vjp", "silu", "silu_vjp", "tanh", "tanh_vjp"]


@eager("activation", presets={"activation": "relu"})
def relu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """``max(x, 0)``, element by element.

    NaN stays NaN; the derivative at 0 is 0.

    Args:
        x: float32 or float64, any shape and strides.
        out: where to write the result, an array like x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.relu(np.array([-1.0, 2.0], np.float32)).tolist()
    [0.0, 2.0]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"y": "source"}, presets={"activation": "relu"})
def relu_vjp(dy: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """``dy`` times the derivative of relu: the gradient with respect to its input.

    Args:
        dy: the gradient with respect to the output; float32 or float64, any shape and strides.
        y: the output of relu; the shape and dtype of dy.
        out: where to write the result, an array like dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.relu_vjp(np.full(2, 3, np.float32), np.array([-1.0, 2.0], np.float32)).tolist()
    [0.0, 3.0]
    """
    raise NotImplementedError


@eager("activation", presets={"activation": "gelu"})
def gelu(x: ArrayLike, *, approximate: Approximate = "tanh", out: Array | None = None) -> Array:
    """``x * sigmoid(2 u)`` with ``u = sqrt(2/pi) (x + 0.044715 x^3)``, element by element; with ``approximate="none"``
    the exact form, ``x * (1 + erf(x / sqrt(2))) / 2``.

    The first is the tanh form of Hendrycks and Gimpel (arXiv:1606.08415), the one that GPU libraries fuse into matrix
    products, and the default of jax.nn.gelu. The exact form is the default of torch.nn.functional.gelu; the two differ by at
    most 4.8e-4. The exact form's error is relative in the tail too, where ``1 + erf`` would cancel.

    Args:
        x: float32 or float64, any shape and strides.
        approximate: "tanh" or "none".
        out: where to write the result, an array like x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.gelu(np.array([0.0, 20.0], np.float32)).tolist()
    [0.0, 20.0]
    >>> gr.ops.gelu(np.array([-1.0, 1.0]), approximate="none").round(6).tolist()
    [-0.158655, 0.841345]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"x": "source"}, presets={"activation": "gelu"})
def gelu_vjp(dy: ArrayLike, x: ArrayLike, *, approximate: Approximate = "tanh", out: Array | None = None) -> Array:
    """``dy`` times the derivative of gelu: the gradient with respect to its input.

    Args:
        dy: the gradient with respect to the output; float32 or float64, any shape and strides.
        x: the input of gelu; the shape and dtype of dy.
        approximate: as given to :func:`gelu`.
        out: where to write the result, an array like dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.gelu_vjp(np.full(2, 3, np.float32), np.array([0.0, 20.0], np.float32)).tolist()
    [1.5, 3.0]
    """
    raise NotImplementedError


@eager("activation", presets={"activation": "silu"})
def silu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """``x * sigmoid(x)``, element by element.

    Elfwing et al., arXiv:1702.03118; also called swish.

    Args:
        x: float32 or float64, any shape and strides.
        out: where to write the result, an array like x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.silu(np.array([0.0, 40.0], np.float32)).tolist()
    [0.0, 40.0]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"x": "source"}, presets={"activation": "silu"})
def silu_vjp(dy: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """``dy`` times the derivative of silu: the gradient with respect to its input.

    Args:
        dy: the gradient with respect to the output; float32 or float64, any shape and strides.
        x: the input of silu; the shape and dtype of dy.
        out: where to write the result, an array like dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.silu_vjp(np.full(2, 3, np.float32), np.array([0.0, 100.0], np.float32)).tolist()
    [1.5, 3.0]
    """
    raise NotImplementedError


@eager("activation", presets={"activation": "tanh"})
def tanh(x: ArrayLike, *, out: Array | None = None) -> Array:
    """``tanh(x)``, element by element.

    Args:
        x: float32 or float64, any shape and strides.
        out: where to write the result, an array like x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.tanh(np.array([0.0, 20.0], np.float32)).tolist()
    [0.0, 1.0]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"y": "source"}, presets={"activation": "tanh"})
def tanh_vjp(dy: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """``dy`` times the derivative of tanh: the gradient with respect to its input.

    Args:
        dy: the gradient with respect to the output; float32 or float64, any shape and strides.
        y: the output of tanh; the shape and dtype of dy.
        out: where to write the result, an array like dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.tanh_vjp(np.full(2, 3, np.float32), np.array([0.0, 1.0], np.float32)).tolist()
    [3.0, 0.0]
    """
    raise NotImplementedError


@eager("activation", presets={"activation": "sigmoid"})
def sigmoid(x: ArrayLike, *, out: Array | None = None) -> Array:
    """``1 / (1 + exp(-x))``, element by element.

    Args:
        x: float32 or float64, any shape and strides.
        out: where to write the result, an array like x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.sigmoid(np.array([0.0, 40.0], np.float32)).tolist()
    [0.5, 1.0]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"y": "source"}, presets={"activation": "sigmoid"})
def sigmoid_vjp(dy: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """``dy`` times the derivative of sigmoid: the gradient with respect to its input.

    Args:
        dy: the gradient with respect to the output; float32 or float64, any shape and strides.
        y: the output of sigmoid; the shape and dtype of dy.
        out: where to write the result, an array like dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.sigmoid_vjp(np.full(2, 3, np.float32), np.array([0.5, 1.0], np.float32)).tolist()
    [0.75, 0.0]
    """
    raise NotImplementedError


NEEDS_INPUT = frozenset({"gelu", "silu"})
"""Activations whose derivative reads their input; the others' reads their output."""

EITHER_SOURCE = frozenset({"relu"})
"""Activations whose derivative is the same whether it reads their input or their output."""

KINDS = ("relu", "gelu", "silu", "tanh", "sigmoid")


def sigmoid_of(x: Array) -> Any:
    """The sigmoid in NumPy, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _gelu(x: Array, approximate: str) -> tuple[Any, Any]:
    """The value of gelu, and its derivative."""
    if approximate == "none":
        below = (_erfc(-x / math.sqrt(2)) / 2).astype(x.dtype)
        return x * below, below + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    s = sigmoid_of(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return x * s, s + x * s * (1 - s) * 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)


def activated(x: Array, kind: str, approximate: str = "tanh") -> Any:
    """An activation in NumPy."""
    if kind == "gelu":
        return _gelu(x, approximate)[0]
    if kind == "silu":
        return x * sigmoid_of(x)
    if kind == "relu":
        return np.maximum(x, 0)
    return np.tanh(x) if kind == "tanh" else sigmoid_of(x)


def activated_vjp(dy: Array, source: Array, kind: str, approximate: str = "tanh") -> Any:
    """``dy`` times an activation's derivative in NumPy, at its input or its output (see ``NEEDS_INPUT``)."""
    if kind == "relu":
        return np.where(source <= 0, 0, dy)
    if kind == "gelu":
        return dy * _gelu(source, approximate)[1]
    if kind == "silu":
        s = sigmoid_of(source)
        return dy * (s + source * s * (1 - s))
    return dy * (1 - source**2 if kind == "tanh" else source * (1 - source))


def torch_activated(x: Any, kind: str, approximate: str = "tanh") -> Any:
    """An activation in PyTorch."""
    import torch

    if kind == "gelu":
        return torch.nn.functional.gelu(x, approximate=approximate)
    return getattr(torch.nn.functional if kind == "silu" else torch, kind)(x)


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for kind in KINDS:
        yield {"x": rng.standard_normal((rows, 19)) * 3, "activation": kind}
    yield {"x": rng.standard_normal((rows, 19)) * 3, "activation": "gelu", "approximate": "none"}


def _samples_vjp(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for sample in _samples(rng, rows):
        x, kind = sample.pop("x"), sample["activation"]
        source = x if kind in NEEDS_INPUT else activated(x, kind)
        yield {"dy": rng.standard_normal(x.shape), "source": source, **sample}


def _derivative(attributes: Mapping[str, Any]) -> Derivative:
    source = "x" if attributes["activation"] in NEEDS_INPUT else "y"
    return Derivative("activation_vjp", {"dy": DY, "source": source}, {"x": "dx"})


declare(
    "activation",
    reference=lambda x, activation, approximate: {"y": activated(x, activation, approximate)},
    samples=_samples,
    torch=lambda x, activation, approximate: {"y": torch_activated(x, activation, approximate)},
    derivative=_derivative,
)
declare(
    "activation_vjp",
    reference=lambda dy, source, activation, approximate: {"dx": activated_vjp(dy, source, activation, approximate)},
    samples=_samples_vjp,
)
