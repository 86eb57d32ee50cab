"""Activations: relu, gelu, silu, tanh and sigmoid, and their vjps."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["gelu", "gelu_vjp", "relu", "relu_vjp", "sigmoid", "sigmoid_vjp", "silu", "silu_vjp", "tanh", "tanh_vjp"]


@eager("activation", presets={"activation": "relu"})
def relu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """``max(x, 0)``, element by element.

    NaN stays NaN; the derivative at 0 is 0.

    Args:
        x: float32 or float64, any shape and strides.
        out: where to write the result, as x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.relu(np.array([-1.0, 2.0], np.float32)).tolist()
    [0.0, 2.0]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"y": "source"}, presets={"activation": "relu"})
def relu_vjp(dy: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """``dy`` times the derivative of relu: the gradient by its input.

    Args:
        dy: the gradient by the output; float32 or float64, any shape and strides.
        y: the output of relu; shape and dtype as dy.
        out: where to write the result, as dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.relu_vjp(np.full(2, 3, np.float32), np.array([-1.0, 2.0], np.float32)).tolist()
    [0.0, 3.0]
    """
    raise NotImplementedError


@eager("activation", presets={"activation": "gelu"})
def gelu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """``x * sigmoid(2 u)`` with ``u = sqrt(2/pi) (x + 0.044715 x^3)``, element by element.

    The tanh form of Hendrycks and Gimpel (arXiv:1606.08415), the one that GPU libraries fuse into matrix products:
    the same as torch.nn.functional.gelu(x, approximate="tanh") and jax.nn.gelu(x). PyTorch's default,
    approximate="none", differs from it by at most 4.8e-4.

    Args:
        x: float32 or float64, any shape and strides.
        out: where to write the result, as x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.gelu(np.array([0.0, 20.0], np.float32)).tolist()
    [0.0, 20.0]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"x": "source"}, presets={"activation": "gelu"})
def gelu_vjp(dy: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """``dy`` times the derivative of gelu: the gradient by its input.

    Args:
        dy: the gradient by the output; float32 or float64, any shape and strides.
        x: the input of gelu; shape and dtype as dy.
        out: where to write the result, as dy; may be dy.

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
        out: where to write the result, as x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.silu(np.array([0.0, 40.0], np.float32)).tolist()
    [0.0, 40.0]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"x": "source"}, presets={"activation": "silu"})
def silu_vjp(dy: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """``dy`` times the derivative of silu: the gradient by its input.

    Args:
        dy: the gradient by the output; float32 or float64, any shape and strides.
        x: the input of silu; shape and dtype as dy.
        out: where to write the result, as dy; may be dy.

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
        out: where to write the result, as x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.tanh(np.array([0.0, 20.0], np.float32)).tolist()
    [0.0, 1.0]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"y": "source"}, presets={"activation": "tanh"})
def tanh_vjp(dy: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """``dy`` times the derivative of tanh: the gradient by its input.

    Args:
        dy: the gradient by the output; float32 or float64, any shape and strides.
        y: the output of tanh; shape and dtype as dy.
        out: where to write the result, as dy; may be dy.

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
        out: where to write the result, as x; may be x.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.sigmoid(np.array([0.0, 40.0], np.float32)).tolist()
    [0.5, 1.0]
    """
    raise NotImplementedError


@eager("activation_vjp", results=("dx",), names={"y": "source"}, presets={"activation": "sigmoid"})
def sigmoid_vjp(dy: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """``dy`` times the derivative of sigmoid: the gradient by its input.

    Args:
        dy: the gradient by the output; float32 or float64, any shape and strides.
        y: the output of sigmoid; shape and dtype as dy.
        out: where to write the result, as dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.sigmoid_vjp(np.full(2, 3, np.float32), np.array([0.5, 1.0], np.float32)).tolist()
    [0.75, 0.0]
    """
    raise NotImplementedError
