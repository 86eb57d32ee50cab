"""The cross entropy of a softmax with class numbers, and its vjp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.choices import Reduction
from gradring.ops._declare import declare
from gradring.ops._eager import SCHEMAS, eager

Array = NDArray[Any]

__all__ = ["softmax_cross_entropy", "softmax_cross_entropy_vjp"]


@eager(
    "cross_entropy",
    results=("losses",),
    names={"logits": "x", "labels": "target", "weight": "class_weight"},
    hidden="totals",
    outcome="losses",
)
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "sample",
    out: Array | None = None,
) -> Any:
    """``log(sum(exp(logits))) - logits[label]`` for each row: the cross entropy of the softmax with a class number, or with a
    distribution over the classes.

    Args:
        logits: (..., classes); float32 or float64.
        labels: (...); int32, int64 or uint8, each in [0, classes). Or (..., classes), of logits' dtype: probabilities.
        weight: (classes,), of logits' dtype: the factor of each class's term.
        label_smoothing: from 0 to below 1: the share of each target that is spread evenly over all classes.
        sample_weight: shaped as a row's loss, of logits' dtype: the factor of each row's loss.
        reduction: "sample" for one loss per row; "mean" or "sum" of them as a float. The mean is over the sum of the
            factors: of the rows, and with class numbers of their classes, as PyTorch has it.
        out: where to write the losses, one for each row, of logits' dtype; only for "sample".

    Raises:
        ValueError: shapes that do not fit, or a label outside its range (named with its place).

    >>> import numpy as np, gradring as gr
    >>> logits = np.array([[0, 0], [100, 0]], np.float32)
    >>> gr.ops.softmax_cross_entropy(logits, np.array([1, 0])).round(4).tolist()
    [0.6930999755859375, 0.0]
    >>> round(gr.ops.softmax_cross_entropy(logits, np.array([1, 0]), reduction="mean"), 4)
    0.3466
    """
    raise NotImplementedError


@eager(
    "cross_entropy",
    results=("dx",),
    names={"logits": "x", "labels": "target", "dlosses": ("dlosses", "scale"), "weight": "class_weight"},
    hidden="totals",
)
def softmax_cross_entropy_vjp(
    dlosses: Any,
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "sample",
    out: Array | None = None,
) -> Array:
    """``(softmax(logits) - one_hot(labels)) * dlosses``: the gradient of softmax_cross_entropy by the logits.

    Args:
        dlosses: the gradient with respect to the losses: a number for all rows, or one for each.
        logits: (..., classes); float32 or float64.
        labels: as softmax_cross_entropy takes them.
        weight, label_smoothing, sample_weight: the same as for softmax_cross_entropy.
        reduction: the same as for softmax_cross_entropy; "mean" divides by the number of rows, or the sum of factors.
        out: where to write the result, an array like logits; may be logits.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.softmax_cross_entropy_vjp(1.0, np.zeros((1, 2), np.float32), np.array([1])).tolist()
    [[0.5, -0.5]]
    """
    raise NotImplementedError


# The operands in the order of the schema: the prediction, the target, the losses' gradient, the result.
_X, _TARGET, _DLOSSES, _DX = (operand["name"] for operand in SCHEMAS["cross_entropy"]["operands"][:4])


_WEIGHT, _CLASSES = "sample_weight", "class_weight"


def _reference(*, scale: float, reduction: str, label_smoothing: float, **given: Array) -> Mapping[str, Any]:
    logits, target, dlosses = given[_X], given[_TARGET], given.get(_DLOSSES)
    classes = logits.shape[-1]
    weights = np.ones(classes, logits.dtype) if given.get(_CLASSES) is None else given[_CLASSES]
    rows = np.ones(logits.shape[:-1], logits.dtype) if given.get(_WEIGHT) is None else given[_WEIGHT]
    soft = target.dtype.kind == "f"
    hot = target if soft else np.eye(classes, dtype=logits.dtype)[target]
    spread = (1 - label_smoothing) * hot + label_smoothing / classes
    shares = np.where(spread == 0, 0, weights * spread)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    factor = np.asarray(scale * rows if dlosses is None else scale * rows * dlosses)
    counted = rows if soft else rows * weights[target]
    if reduction == "mean" and counted.size:
        factor = factor / counted.sum()
    dlogits = (np.exp(logs) * shares.sum(axis=-1, keepdims=True) - shares) * factor[..., np.newaxis]
    sums = dlogits.reshape(-1, classes).sum(axis=0)
    return {"losses": -(shares * logs).sum(axis=-1) * rows, _DX: dlogits, "column_sums": sums}


def _torch(*, scale: float, reduction: str, label_smoothing: float, **given: Any) -> Mapping[str, Any]:
    import torch

    logits, target, dlosses = given[_X].detach().requires_grad_(), given[_TARGET], given.get(_DLOSSES)
    soft, classes = target.is_floating_point(), logits.shape[-1]
    losses = torch.nn.functional.cross_entropy(
        logits.reshape(-1, classes),
        target.reshape(-1, classes) if soft else target.long().reshape(-1),
        weight=given.get(_CLASSES),
        label_smoothing=label_smoothing,
        reduction="none",
    ).reshape(logits.shape[:-1])
    rows = torch.ones_like(losses) if given.get(_WEIGHT) is None else given[_WEIGHT]
    losses = losses * rows
    total = (losses if dlosses is None else losses * dlosses).sum() * scale
    if reduction == "mean" and losses.numel():
        by_class = None if soft else given.get(_CLASSES)
        total = total / (rows if by_class is None else rows * by_class[target.long()]).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    return {"losses": losses.detach(), _DX: gradient}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    logits, labels = rng.standard_normal((rows, 19)) * 3, rng.integers(0, 19, rows)
    yield {_X: logits, _TARGET: labels, _DLOSSES: rng.standard_normal(rows), "scale": 0.5}
    for reduction in ("mean", "sum"):
        yield {_X: logits, _TARGET: labels.astype(np.int32), "reduction": reduction}
    yield {_X: rng.standard_normal((rows, 2, 3)), _TARGET: rng.integers(0, 3, (rows, 2))}
    weights = {_WEIGHT: rng.random(rows) + 0.1, _CLASSES: rng.random(19) + 0.1}
    soft = rng.random((rows, 19))
    soft /= soft.sum(axis=1, keepdims=True)
    for target in (labels, soft):
        for reduction in ("sample", "mean"):
            for smoothing in (0.0, 0.2):
                more = {"reduction": reduction, "label_smoothing": smoothing}
                yield {_X: logits, _TARGET: target, **weights, **more}
    wide, many = rng.standard_normal((rows, 150)), rng.random((rows, 150))
    many /= many.sum(axis=1, keepdims=True)
    for target in (rng.integers(0, 150, rows), many):
        yield {_X: wide, _TARGET: target, _WEIGHT: weights[_WEIGHT], "label_smoothing": 0.1, "reduction": "mean"}
        yield {_X: wide, _TARGET: target, _CLASSES: rng.random(150) + 0.1, "label_smoothing": 0.1}


declare("cross_entropy", reference=_reference, samples=_samples, torch=_torch)
