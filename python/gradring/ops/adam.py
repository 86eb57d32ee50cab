"""adam_update and adamw_update: one step of Adam or AdamW."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["adam_update", "adamw_update"]


@eager("adam_update", results=(), names={"betas": ("beta1", "beta2")}, presets={"decoupled": False})
def adam_update(
    param: Array,
    grad: ArrayLike,
    m: Array,
    v: Array,
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
        grad: as param.
        m, v: the running means of the gradient and of its square, as param, zeros before the first step; changed.
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
        grad: as param.
        m, v: the running means of the gradient and of its square, as param, zeros before the first step; changed.
        step: 1 for the first update.
        grad_scale: a factor of the gradient, such as the one that clips it.

    >>> import numpy as np, gradring as gr
    >>> param, m, v = np.ones(2), np.zeros(2), np.zeros(2)
    >>> gr.ops.adamw_update(param, np.array([0.5, -3.0]), m, v, step=1, lr=0.1, weight_decay=1.0)
    >>> param.round(6).tolist()
    [0.8, 1.0]
    """
    raise NotImplementedError
