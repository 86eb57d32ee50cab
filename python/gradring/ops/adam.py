"""adam_update and adamw_update: one step of Adam or AdamW."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["adam_update", "adamw_update"]


@eager("adam_update", results=(), names={"betas": ("beta1", "beta2")}, presets={"decoupled": False})
def adam_update(
    param: Array,
    grad: ArrayLike,
    m: Array,
    v: Array,
    vmax: Array | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0,
    grad_scale: float = 1,
) -> None:
    """One step of Adam (Kingma and Ba, 2015), in place, in one pass over memory; torch.optim.Adam's formula, in which
    weight_decay is added to the gradient.

    Args:
        param: any shape; float32 or float64; changed.
        grad: like param.
        m, v: the running means of the gradient and of its square, like param, zeros before the first step; changed.
        vmax: like v; the largest v so far, which replaces v in the update (AMSGrad; Reddi et al., 2018); changed.
        step: 1 for the first update.
        grad_scale: a factor of the gradient, such as the one that clips it.

    >>> import numpy as np, gradring as gr
    >>> param, m, v = np.ones(2), np.zeros(2), np.zeros(2)
    >>> gr.ops.adam_update(param, np.array([0.5, -3.0]), m, v, step=1, lr=0.1)
    >>> param.round(6).tolist()
    [0.9, 1.1]
    """
    raise NotImplementedError


@eager("adam_update", results=(), names={"betas": ("beta1", "beta2")}, presets={"decoupled": True})
def adamw_update(
    param: Array,
    grad: ArrayLike,
    m: Array,
    v: Array,
    vmax: Array | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    grad_scale: float = 1,
) -> None:
    """One step of AdamW (Loshchilov and Hutter, 2019), in place, in one pass over memory; torch.optim.AdamW's formula, in
    which weight_decay shrinks the parameters: ``param *= 1 - lr * weight_decay``.

    Args:
        param: any shape; float32 or float64; changed.
        grad: like param.
        m, v: the running means of the gradient and of its square, like param, zeros before the first step; changed.
        vmax: like v; the largest v so far, which replaces v in the update (AMSGrad; Reddi et al., 2018); changed.
        step: 1 for the first update.
        grad_scale: a factor of the gradient, such as the one that clips it.

    >>> import numpy as np, gradring as gr
    >>> param, m, v = np.ones(2), np.zeros(2), np.zeros(2)
    >>> gr.ops.adamw_update(param, np.array([0.5, -3.0]), m, v, step=1, lr=0.1, weight_decay=1.0)
    >>> param.round(6).tolist()
    [0.8, 1.0]
    """
    raise NotImplementedError


def _reference(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    vmax: Any = None,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    grad_scale: float,
) -> Mapping[str, Any]:
    g = grad * grad_scale + (0 if decoupled else weight_decay * param)
    param = param * (1 - lr * weight_decay) if decoupled else param
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    largest = {} if vmax is None else {"vmax": np.maximum(vmax, v)}
    m_hat, v_hat = m / (1 - beta1**step), largest.get("vmax", v) / (1 - beta2**step)
    return {"param": param - lr * m_hat / (np.sqrt(v_hat) + eps), "m": m, "v": v, **largest}


def _torch(
    param: Any,
    grad: Any,
    m: Any,
    v: Any,
    vmax: Any = None,
    *,
    step: int,
    beta1: float,
    beta2: float,
    decoupled: bool,
    grad_scale: float,
    **options: Any,
) -> Mapping[str, Any]:
    import torch

    param, m, v = param.clone().requires_grad_(), m.clone(), v.clone()
    param.grad = grad * grad_scale
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind([param], betas=(beta1, beta2), amsgrad=vmax is not None, **options)
    optimizer.state[param] = {"step": torch.tensor(float(step - 1)), "exp_avg": m, "exp_avg_sq": v}
    results = {"m": m, "v": v}
    if vmax is not None:
        optimizer.state[param]["max_exp_avg_sq"] = results["vmax"] = vmax.clone()
    optimizer.step()
    return {"param": param.detach(), **results}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for decoupled, amsgrad in ((False, False), (True, False), (False, True), (True, True)):
        param, grad, m = rng.standard_normal((3, rows, 19))
        yield {
            **({"vmax": rng.random((rows, 19)) + 0.1} if amsgrad else {}),
            "param": param,
            "grad": grad,
            "m": m,
            "v": rng.random((rows, 19)) + 0.1,
            "step": 3,
            "lr": 0.01,
            "beta1": 0.8,
            "beta2": 0.95,
            "eps": 1e-6,
            "weight_decay": 0.1,
            "decoupled": decoupled,
            "grad_scale": 0.3,
        }


declare("adam_update", reference=_reference, samples=_samples, torch=_torch)
