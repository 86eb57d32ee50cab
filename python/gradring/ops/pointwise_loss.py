"""mse and binary_cross_entropy, and their vjps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import declare
from gradring.ops._eager import SCHEMAS, eager

Array = NDArray[Any]

__all__ = ["binary_cross_entropy", "binary_cross_entropy_vjp", "mse", "mse_vjp"]


@eager("mse", results=("losses",), names={"pred": "x"}, hidden="totals", outcome="losses")
def mse(pred: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None) -> Any:
    """The mean of ``(pred - target) ** 2``.

    Args:
        pred: (samples, ...); float32 or float64.
        target: shape and dtype as pred.
        reduction: "mean" or "sum" over everything, as a float; "sample" for one mean per sample, (samples,).
        out: where to write the samples' losses; only for "sample".

    >>> import numpy as np, gradring as gr
    >>> pred = np.array([[1, 2], [3, 4]], np.float32)
    >>> gr.ops.mse(pred, np.ones_like(pred))
    3.5
    >>> gr.ops.mse(pred, np.ones_like(pred), reduction="sample").tolist()
    [0.5, 6.5]
    """
    raise NotImplementedError


@eager(
    "mse",
    results=("dx",),
    names={"pred": "x", "dloss": ("dlosses", "scale")},
    hidden="totals",
)
def mse_vjp(
    dloss: Any, pred: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> Array:
    """The gradient of mse by pred: ``2 * (pred - target) / pred.size * dloss``.

    Args:
        dloss: the gradient by the loss: a number, or with reduction="sample" also one for each sample.
        pred: (samples, ...); float32 or float64.
        target: shape and dtype as pred.
        reduction: as it was given to mse.
        out: where to write the result, as pred; may be pred.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.mse_vjp(1.0, np.array([[1, 3]], np.float32), np.ones((1, 2), np.float32)).tolist()
    [[0.0, 2.0]]
    """
    raise NotImplementedError


@eager(
    "binary_cross_entropy",
    results=("losses",),
    names={"logits": "x", "targets": "target"},
    hidden="totals",
    outcome="losses",
)
def binary_cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> Any:
    """The mean of ``-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x))`` for logits x and targets t, in the form that neither
    overflows nor loses digits: ``max(x, 0) - x t + log(1 + exp(-|x|))``.

    Args:
        logits: (samples, ...); float32 or float64.
        targets: probabilities in [0, 1]; shape and dtype as logits.
        reduction: "mean" or "sum" over everything, as a float; "sample" for one mean per sample, (samples,).
        out: where to write the samples' losses; only for "sample".

    >>> import numpy as np, gradring as gr
    >>> round(gr.ops.binary_cross_entropy(np.zeros(3, np.float32), np.ones(3, np.float32)), 6)
    0.693147
    """
    raise NotImplementedError


@eager(
    "binary_cross_entropy",
    results=("dx",),
    names={"logits": "x", "targets": "target", "dloss": ("dlosses", "scale")},
    hidden="totals",
)
def binary_cross_entropy_vjp(
    dloss: Any, logits: ArrayLike, targets: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> Array:
    """The gradient of binary_cross_entropy by the logits: ``(sigmoid(logits) - targets) / logits.size * dloss``.

    Args:
        dloss: the gradient by the loss: a number, or with reduction="sample" also one for each sample.
        logits: (samples, ...); float32 or float64.
        targets: probabilities in [0, 1]; shape and dtype as logits.
        reduction: as it was given to binary_cross_entropy.
        out: where to write the result, as logits; may be logits.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.binary_cross_entropy_vjp(1.0, np.zeros(2, np.float32), np.array([0, 1], np.float32)).tolist()
    [0.25, -0.25]
    """
    raise NotImplementedError


def _mse(x: Array, t: Array) -> tuple[Any, Any]:
    """The loss of each element, and its derivative."""
    return (x - t) ** 2, 2 * (x - t)


def _bce(x: Array, t: Array) -> tuple[Any, Any]:
    losses = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    return losses, 0.5 * (1 + np.tanh(0.5 * x)) - t


def _factor(shape: tuple[int, ...], scale: float, reduction: str) -> float:
    """The factor of an element's derivative, since a sample's loss is the mean of its elements' losses."""
    rows, columns = max(shape[0], 1), max(math.prod(shape[1:]), 1)
    return scale / {"sample": columns, "mean": columns * rows, "sum": 1}[reduction]


# The operands by their places in the schema: the prediction, the target, the gradient by the losses, the result.
_X, _TARGET, _DLOSSES, _DX = (operand["name"] for operand in SCHEMAS["mse"]["operands"][:4])


def _declare(op: str, formula: Callable[[Array, Array], tuple[Any, Any]], function: str) -> None:
    def reference(*, scale: float, reduction: str, **given: Array) -> Mapping[str, Any]:
        x, dlosses = given[_X], given.get(_DLOSSES)
        losses, slopes = formula(x, given[_TARGET])
        each = 1 if dlosses is None else np.reshape(dlosses, (-1, *[1] * (x.ndim - 1)))
        dx = slopes * each * _factor(x.shape, scale, reduction)
        axes = tuple(range(1, x.ndim))
        mean = losses.mean(axis=axes) if axes else losses
        return {"losses": mean, _DX: dx, "column_sums": dx.sum(axis=0).reshape(-1)}

    def twin(*, scale: float, reduction: str, **given: Any) -> Mapping[str, Any]:
        import torch

        x, dlosses = given[_X].detach().requires_grad_(), given.get(_DLOSSES)
        losses = getattr(torch.nn.functional, function)(x, given[_TARGET], reduction="none")
        each = 1 if dlosses is None else dlosses.reshape(-1, *[1] * (x.ndim - 1))
        (gradient,) = torch.autograd.grad((losses * each).sum() * _factor(tuple(x.shape), scale, reduction), x)
        axes = tuple(range(1, x.ndim))
        return {"losses": losses.detach().mean(axes) if axes else losses.detach(), _DX: gradient}

    def samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
        x, t = rng.standard_normal((rows, 19)) * 3, rng.random((rows, 19))
        yield {_X: x, _TARGET: t, _DLOSSES: rng.standard_normal(rows), "scale": 0.5}
        for reduction in ("mean", "sum"):
            yield {_X: x, _TARGET: t, "reduction": reduction}
        yield {_X: rng.standard_normal((rows, 2, 3)), _TARGET: rng.random((rows, 2, 3))}

    declare(op, reference=reference, samples=samples, torch=twin)


_declare("mse", _mse, "mse_loss")
_declare("binary_cross_entropy", _bce, "binary_cross_entropy_with_logits")
