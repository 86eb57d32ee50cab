"""lion_update: one step of Lion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["lion_update"]


@eager("lion_update", results=(), names={"betas": ("beta1", "beta2")})
def lion_update(
    param: Array,
    grad: ArrayLike,
    m: Array,
    *,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0,
    grad_scale: float = 1,
) -> None:
    """One step of Lion (Chen et al., 2023), in place, in one pass over memory::

        g = grad * grad_scale
        param -= lr * (sign(betas[0] * m + (1 - betas[0]) * g) + weight_decay * param)
        m = betas[1] * m + (1 - betas[1]) * g

    Args:
        param: any shape; float32 or float64; changed.
        grad: like param.
        m: the running mean of the gradient, like param, zeros before the first step; changed.
        grad_scale: a factor of the gradient, such as the one that clips it.

    >>> import numpy as np, gradring as gr
    >>> param, m = np.ones(3), np.zeros(3)
    >>> gr.ops.lion_update(param, np.array([0.5, -3.0, 0.0]), m, lr=0.1)
    >>> param.tolist()
    [0.9, 1.1, 1.0]
    """
    raise NotImplementedError


def _reference(
    param: Array,
    grad: Array,
    m: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    grad_scale: float,
) -> Mapping[str, Any]:
    g = grad * grad_scale
    step = np.sign(beta1 * m + (1 - beta1) * g)
    return {"param": (1 - lr * weight_decay) * param - lr * step, "m": beta2 * m + (1 - beta2) * g}


def _torch(param: Any, grad: Any, m: Any, *, beta1: float, beta2: float, **options: Any) -> Mapping[str, Any]:
    import torch

    g = grad * options["grad_scale"]
    step = options["lr"] * torch.sign(torch.lerp(g, m, beta1))
    return {"param": param * (1 - options["lr"] * options["weight_decay"]) - step, "m": torch.lerp(g, m, beta2)}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for weight_decay in (0.0, 0.1):
        param, grad, m = rng.standard_normal((3, rows, 19))
        # All numbers have one sign, so that rounding changes no sign.
        yield {
            "param": param,
            "grad": grad,
            "m": np.sign(grad) * np.abs(m),
            "lr": 0.01,
            "beta1": 0.8,
            "beta2": 0.95,
            "weight_decay": weight_decay,
            "grad_scale": 0.3,
        }


declare("lion_update", reference=_reference, samples=_samples, torch=_torch)
