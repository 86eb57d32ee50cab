"""rmsprop_update: one step of RMSprop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["rmsprop_update"]


@eager("rmsprop_update", results=())
def rmsprop_update(
    param: Array,
    grad: ArrayLike,
    v: Array,
    mean: Array | None = None,
    velocity: Array | None = None,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0,
    momentum: float = 0,
    centered: bool = False,
    grad_scale: float = 1,
) -> None:
    """One step of RMSprop (Tieleman and Hinton, 2012), in place, in one pass over memory; torch.optim.RMSprop's formula::

        g = grad * grad_scale + weight_decay * param
        v = alpha * v + (1 - alpha) * g**2
        mean = alpha * mean + (1 - alpha) * g                        # centered
        d = g / (sqrt(v - mean**2 if centered else v) + eps)
        velocity = momentum * velocity + d                           # with momentum
        param -= lr * (velocity if momentum else d)

    Args:
        param: any shape; float32 or float64; changed.
        grad: like param.
        v: the running mean of the gradient's square, like param, zeros before the first step; changed.
        mean: the running mean of the gradient, likewise. Needed if centered.
        velocity: like param, zeros before the first step; changed. Needed with momentum.
        grad_scale: a factor of the gradient, such as the one that clips it.

    >>> import numpy as np, gradring as gr
    >>> param, v = np.ones(2), np.zeros(2)
    >>> gr.ops.rmsprop_update(param, np.array([0.5, -3.0]), v, lr=0.1, alpha=0.75)
    >>> param.round(6).tolist()
    [0.8, 1.2]
    """
    raise NotImplementedError


def _reference(
    param: Array,
    grad: Array,
    v: Array,
    mean: Any = None,
    velocity: Any = None,
    *,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    centered: bool,
    grad_scale: float,
) -> Mapping[str, Any]:
    g = grad * grad_scale + (weight_decay * param if weight_decay else 0)
    made = {"v": alpha * v + (1 - alpha) * g**2}
    spread = made["v"]
    if centered:
        made["mean"] = alpha * mean + (1 - alpha) * g
        spread = spread - made["mean"] ** 2
        spread = np.where(spread < 0, 0, spread)
    step = g / (np.sqrt(spread) + eps)
    if momentum:
        step = made["velocity"] = momentum * velocity + step
    return {"param": param - lr * step, **made}


def _torch(
    param: Any,
    grad: Any,
    v: Any,
    mean: Any = None,
    velocity: Any = None,
    *,
    grad_scale: float,
    **options: Any,
) -> Mapping[str, Any]:
    import torch

    param, results = param.clone().requires_grad_(), {"v": v.clone()}
    param.grad = grad * grad_scale
    optimizer = torch.optim.RMSprop([param], **options)
    optimizer.state[param] = {"step": torch.tensor(1.0), "square_avg": results["v"]}
    if mean is not None:
        optimizer.state[param]["grad_avg"] = results["mean"] = mean.clone()
    if velocity is not None:
        optimizer.state[param]["momentum_buffer"] = results["velocity"] = velocity.clone()
    optimizer.step()
    return {"param": param.detach(), **results}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for centered in (False, True):
        for momentum in (0.0, 0.9):
            param, grad, velocity = rng.standard_normal((3, rows, 19))
            yield {
                "param": param,
                "grad": grad,
                "v": rng.random((rows, 19)) + 0.5,
                **({"mean": 0.1 * rng.standard_normal((rows, 19))} if centered else {}),
                **({"velocity": velocity} if momentum else {}),
                "lr": 0.01,
                "alpha": 0.9,
                "eps": 1e-6,
                "weight_decay": 0.1,
                "momentum": momentum,
                "centered": centered,
                "grad_scale": 0.3,
            }


declare("rmsprop_update", reference=_reference, samples=_samples, torch=_torch)
