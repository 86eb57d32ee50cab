"""sgd_update: one step of stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import declare
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
        grad: like param.
        velocity: like param, zeros before the first step; changed. Needed with momentum.
        grad_scale: a factor of the gradient, such as the one that clips it.

    >>> import numpy as np, gradring as gr
    >>> param = np.ones(2, np.float32)
    >>> gr.ops.sgd_update(param, np.array([1, 2], np.float32), lr=0.5)
    >>> param.tolist()
    [0.5, 0.0]
    """
    raise NotImplementedError


def _reference(
    param: Array,
    grad: Array,
    velocity: Any = None,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    grad_scale: float,
) -> Mapping[str, Any]:
    g = grad * grad_scale + (weight_decay * param if weight_decay else 0)
    if velocity is None:
        return {"param": param - lr * g}
    velocity = momentum * velocity + g
    return {"param": param - lr * (g + momentum * velocity if nesterov else velocity), "velocity": velocity}


def _torch(param: Any, grad: Any, velocity: Any = None, *, grad_scale: float, **options: Any) -> Mapping[str, Any]:
    import torch

    param = param.clone().requires_grad_()
    param.grad = grad * grad_scale
    optimizer = torch.optim.SGD([param], **options)
    if velocity is not None:
        optimizer.state[param]["momentum_buffer"] = velocity = velocity.clone()
    optimizer.step()
    results = {"param": param.detach()}
    return results if velocity is None else {**results, "velocity": velocity}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    param, grad, velocity = rng.standard_normal((3, rows, 19))
    yield {"param": param, "grad": grad, "lr": 0.5, "weight_decay": 0.1, "grad_scale": 0.3}
    for nesterov in (False, True):
        yield {"param": param, "grad": grad, "velocity": velocity, "lr": 0.1, "momentum": 0.9, "nesterov": nesterov}


declare("sgd_update", reference=_reference, samples=_samples, torch=_torch)
