"""Losses that compare predictions and targets element by element, and their vjps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.choices import Reduction
from gradring.ops._declare import declare
from gradring.ops._eager import SCHEMAS, eager

Array = NDArray[Any]

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_vjp",
    "huber",
    "huber_vjp",
    "mae",
    "mae_vjp",
    "mse",
    "mse_vjp",
]


@eager("mse", results=("losses",), names={"pred": "x"}, hidden="totals", outcome="losses")
def mse(
    pred: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Any:
    """The mean of ``(pred - target) ** 2``.

    Args:
        pred: (samples, ...); float32 or float64.
        target: the shape and dtype of pred.
        sample_weight: (samples,), of pred's dtype: the factor of each sample's loss; the mean is over the sum of them.
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
    dloss: Any,
    pred: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Array:
    """The gradient of mse by pred: ``2 * (pred - target) / pred.size * dloss``.

    Args:
        dloss: the gradient with respect to the loss: a number, or with reduction="sample" also one for each sample.
        pred: (samples, ...); float32 or float64.
        target: the shape and dtype of pred.
        sample_weight, reduction: the same as for mse.
        out: where to write the result, an array like pred; may be pred.

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
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Any:
    """The mean of ``-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x))`` for logits x and targets t, in the form that neither
    overflows nor loses digits: ``max(x, 0) - x t + log(1 + exp(-|x|))``.

    Args:
        logits: (samples, ...); float32 or float64.
        targets: probabilities in [0, 1]; the shape and dtype of logits.
        pos_weight: one number for each element of a sample, of logits' dtype: the factor of the first term.
        class_weight: (2,), of logits' dtype: the factors of samples whose target is 0 and 1, of one element each.
        sample_weight: (samples,), of logits' dtype: the factor of each sample's loss; the mean is over the sum of factors.
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
    dloss: Any,
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Array:
    """The gradient of binary_cross_entropy by the logits: ``(sigmoid(logits) - targets) / logits.size * dloss``.

    Args:
        dloss: the gradient with respect to the loss: a number, or with reduction="sample" also one for each sample.
        logits: (samples, ...); float32 or float64.
        targets: probabilities in [0, 1]; the shape and dtype of logits.
        pos_weight, class_weight, sample_weight, reduction: the same as for binary_cross_entropy.
        out: where to write the result, an array like logits; may be logits.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.binary_cross_entropy_vjp(1.0, np.zeros(2, np.float32), np.array([0, 1], np.float32)).tolist()
    [0.25, -0.25]
    """
    raise NotImplementedError


@eager("mae", results=("losses",), names={"pred": "x"}, hidden="totals", outcome="losses")
def mae(
    pred: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Any:
    """The mean of ``|pred - target|``.

    Args:
        pred: (samples, ...); float32 or float64.
        target: the shape and dtype of pred.
        sample_weight: (samples,), of pred's dtype: the factor of each sample's loss; the mean is over the sum of them.
        reduction: "mean" or "sum" over everything, as a float; "sample" for one mean per sample, (samples,).
        out: where to write the samples' losses; only for "sample".

    >>> import numpy as np, gradring as gr
    >>> gr.ops.mae(np.array([[1, 2], [3, 4]], np.float32), np.ones((2, 2), np.float32))
    1.5
    """
    raise NotImplementedError


@eager("mae", results=("dx",), names={"pred": "x", "dloss": ("dlosses", "scale")}, hidden="totals")
def mae_vjp(
    dloss: Any,
    pred: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Array:
    """The gradient of mae by pred: ``sign(pred - target) / pred.size * dloss``; 0 where they are equal.

    Args:
        dloss: the gradient with respect to the loss: a number, or with reduction="sample" also one for each sample.
        pred: (samples, ...); float32 or float64.
        target: the shape and dtype of pred.
        sample_weight, reduction: the same as for mae.
        out: where to write the result, an array like pred; may be pred.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.mae_vjp(1.0, np.array([[1, 3]], np.float32), np.ones((1, 2), np.float32)).tolist()
    [[0.0, 0.5]]
    """
    raise NotImplementedError


@eager("huber", results=("losses",), names={"pred": "x"}, hidden="totals", outcome="losses")
def huber(
    pred: ArrayLike,
    target: ArrayLike,
    *,
    delta: float = 1.0,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Any:
    """The mean of ``d ** 2 / 2`` where ``d = |pred - target|`` is at most delta, and of ``delta * (d - delta / 2)`` beyond.

    Args:
        pred: (samples, ...); float32 or float64.
        target: the shape and dtype of pred.
        delta: where the square ends; above 0.
        sample_weight: (samples,), of pred's dtype: the factor of each sample's loss; the mean is over the sum of them.
        reduction: "mean" or "sum" over everything, as a float; "sample" for one mean per sample, (samples,).
        out: where to write the samples' losses; only for "sample".

    >>> import numpy as np, gradring as gr
    >>> gr.ops.huber(np.array([[1, 4]], np.float32), np.zeros((1, 2), np.float32), delta=2.0)
    3.25
    """
    raise NotImplementedError


@eager("huber", results=("dx",), names={"pred": "x", "dloss": ("dlosses", "scale")}, hidden="totals")
def huber_vjp(
    dloss: Any,
    pred: ArrayLike,
    target: ArrayLike,
    *,
    delta: float = 1.0,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Array:
    """The gradient of huber by pred: ``clip(pred - target, -delta, delta) / pred.size * dloss``.

    Args:
        dloss: the gradient with respect to the loss: a number, or with reduction="sample" also one for each sample.
        pred: (samples, ...); float32 or float64.
        target: the shape and dtype of pred.
        delta, sample_weight, reduction: the same as for huber.
        out: where to write the result, an array like pred; may be pred.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.huber_vjp(1.0, np.array([[0.5, 3]], np.float32), np.zeros((1, 2), np.float32)).tolist()
    [[0.25, 0.5]]
    """
    raise NotImplementedError


# Functions from predictions, targets and the op's own options to the loss of each element, and to its derivative.
Formula = Callable[..., tuple[Any, Any]]


def _mse(x: Array, t: Array) -> tuple[Any, Any]:
    return (x - t) ** 2, 2 * (x - t)


def _mae(x: Array, t: Array) -> tuple[Any, Any]:
    return np.abs(x - t), np.sign(x - t)


def _huber(x: Array, t: Array, *, delta: float) -> tuple[Any, Any]:
    far = np.abs(x - t)
    return np.where(far <= delta, 0.5 * far**2, delta * (far - 0.5 * delta)), np.clip(x - t, -delta, delta)


def _bce(x: Array, t: Array, *, pos_weight: Array | None = None) -> tuple[Any, Any]:
    weight = 1.0 if pos_weight is None else pos_weight.reshape(x.shape[1:])
    log1p, sigmoid = np.log1p(np.exp(-np.abs(x))), 0.5 * (1 + np.tanh(0.5 * x))
    losses = weight * t * (np.maximum(-x, 0) + log1p) + (1 - t) * (np.maximum(x, 0) + log1p)
    return losses, (1 - t) * sigmoid - weight * t * (1 - sigmoid)


# The operands in the order of the schema: the prediction, the target, the losses' gradient, the result.
_X, _TARGET, _DLOSSES, _DX = (operand["name"] for operand in SCHEMAS["mse"]["operands"][:4])
_WEIGHT, _CLASSES, _POSITIVE = "sample_weight", "class_weight", "pos_weight"


def _row_weights(given: Mapping[str, Any], ones: Any) -> Any:
    """The factor of each sample's loss."""
    weights = ones if given.get(_WEIGHT) is None else given[_WEIGHT]
    if given.get(_CLASSES) is None:
        return weights
    zero, one = given[_CLASSES]
    return weights * (zero + given[_TARGET].reshape(-1) * (one - zero))


def _factor(shape: tuple[int, ...], scale: float, reduction: str, total: Any) -> Any:
    """The factor of each element's derivative. A sample's loss is the mean of its elements' losses."""
    columns = max(math.prod(shape[1:]), 1)
    return scale / {"sample": columns, "mean": columns * (total if shape[0] else 1), "sum": 1}[reduction]


def _declare(op: str, formula: Formula, function: str) -> None:
    def reference(*, scale: float, reduction: str, delta: float | None = None, **given: Array) -> Mapping[str, Any]:
        x, dlosses = given[_X], given.get(_DLOSSES)
        options: dict[str, Any] = {} if delta is None else {"delta": delta}
        if _POSITIVE in given:
            options[_POSITIVE] = given[_POSITIVE]
        losses, slopes = formula(x, given[_TARGET], **options)
        rows = _row_weights(given, np.ones(len(x), x.dtype))
        each = np.reshape(rows if dlosses is None else rows * dlosses, (-1, *[1] * (x.ndim - 1)))
        dx = slopes * each * _factor(x.shape, scale, reduction, rows.sum())
        axes = tuple(range(1, x.ndim))
        mean = losses.mean(axis=axes) if axes else losses
        return {"losses": mean * rows, _DX: dx, "column_sums": dx.sum(axis=0).reshape(-1)}

    def twin(*, scale: float, reduction: str, delta: float | None = None, **given: Any) -> Mapping[str, Any]:
        import torch

        x, dlosses = given[_X].detach().requires_grad_(), given.get(_DLOSSES)
        options: dict[str, Any] = {} if delta is None else {"delta": delta}
        if given.get(_POSITIVE) is not None:
            options[_POSITIVE] = given[_POSITIVE].reshape(x.shape[1:])
        losses = getattr(torch.nn.functional, function)(x, given[_TARGET], reduction="none", **options)
        rows = _row_weights(given, torch.ones(len(x), dtype=x.dtype))
        each = (rows if dlosses is None else rows * dlosses).reshape(-1, *[1] * (x.ndim - 1))
        factor = _factor(tuple(x.shape), scale, reduction, rows.sum())
        (gradient,) = torch.autograd.grad((losses * each * factor).sum(), x)
        axes = tuple(range(1, x.ndim))
        mean = losses.detach().mean(axes) if axes else losses.detach()
        return {"losses": mean * rows, _DX: gradient}

    def samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
        x, t = rng.standard_normal((rows, 19)) * 3, rng.random((rows, 19))
        yield {_X: x, _TARGET: t, _DLOSSES: rng.standard_normal(rows), "scale": 0.5}
        for reduction in ("mean", "sum"):
            yield {_X: x, _TARGET: t, "reduction": reduction}
        yield {_X: rng.standard_normal((rows, 2, 3)), _TARGET: rng.random((rows, 2, 3))}
        weight = rng.random(rows) + 0.1
        for reduction in ("sample", "mean", "sum"):
            yield {_X: x, _TARGET: t, _WEIGHT: weight, "reduction": reduction}
        one = {_X: x[:, :1], _TARGET: t[:, :1]}
        yield {**one, _WEIGHT: weight, "reduction": "mean"}
        if op == "huber":
            yield {_X: x, _TARGET: t, "delta": 0.3, _WEIGHT: weight}
        if op == "binary_cross_entropy":
            yield {_X: x, _TARGET: t, _POSITIVE: rng.random(19) * 3 + 0.1, _WEIGHT: weight, "reduction": "mean"}
            yield {**one, _POSITIVE: np.array([2.5]), _CLASSES: np.array([0.5, 2.0]), "reduction": "mean"}
            yield {**one, _CLASSES: np.array([0.5, 2.0]), _WEIGHT: weight}

    declare(op, reference=reference, samples=samples, torch=twin)


_declare("mse", _mse, "mse_loss")
_declare("mae", _mae, "l1_loss")
_declare("huber", _huber, "huber_loss")
_declare("binary_cross_entropy", _bce, "binary_cross_entropy_with_logits")
