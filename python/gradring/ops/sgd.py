"""sgd_update: one step of stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["sgd_update"]


@eager("sgd_update", results=())
def sgd_update(
    param: Array,
    grad: ArrayLike,
    velocity: Array | None = None,
    *,
    lr: float,
    momentum: float = 0,
    nesterov: bool = False,
    weight_decay: float = 0,
    grad_scale: float = 1,
) -> None:
    """One step of stochastic gradient descent, in place, in one pass over memory; torch.optim.SGD's formula::

        g = grad * grad_scale + weight_decay * param
        velocity = momentum * velocity + g           # with momentum
        param -= lr * (g + momentum * velocity if nesterov else velocity)

    Args:
        param: any shape; float32 or float64; changed.
        grad: as param.
        velocity: as param, zeros before the first step; changed. Needed with momentum.
        grad_scale: a factor of the gradient, such as the one that clips it.

    >>> import numpy as np, gradring as gr
    >>> param = np.ones(2, np.float32)
    >>> gr.ops.sgd_update(param, np.array([1, 2], np.float32), lr=0.5)
    >>> param.tolist()
    [0.5, 0.0]
    """
    raise NotImplementedError
