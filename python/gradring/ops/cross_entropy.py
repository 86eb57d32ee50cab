"""The cross entropy of a softmax with class numbers, and its vjp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import declare
from gradring.ops._eager import SCHEMAS, eager

Array = NDArray[Any]

__all__ = ["softmax_cross_entropy", "softmax_cross_entropy_vjp"]


@eager(
    "cross_entropy",
    results=("losses",),
    names={"logits": "x", "labels": "target"},
    hidden="totals",
    outcome="losses",
)
def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, reduction: str = "sample", out: Array | None = None
) -> Any:
    """``log(sum(exp(logits))) - logits[label]`` for each row: the cross entropy of the softmax with a class number.

    Args:
        logits: (..., classes); float32 or float64.
        labels: (...); int32, int64 or uint8, each in [0, classes).
        reduction: "sample" for one loss per row; "mean" or "sum" of them as a float.
        out: where to write the losses, shaped as labels, of logits' dtype; only for "sample".

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
    names={"logits": "x", "labels": "target", "dlosses": ("dlosses", "scale")},
    hidden="totals",
)
def softmax_cross_entropy_vjp(
    dlosses: Any, logits: ArrayLike, labels: ArrayLike, *, reduction: str = "sample", out: Array | None = None
) -> Array:
    """``(softmax(logits) - one_hot(labels)) * dlosses``: the gradient of softmax_cross_entropy by the logits.

    Args:
        dlosses: the gradient by the losses: a number for all rows, or one for each, shaped as labels.
        logits: (..., classes); float32 or float64.
        labels: (...); int32, int64 or uint8, each in [0, classes).
        reduction: as it was given to softmax_cross_entropy; "mean" divides by the number of rows.
        out: where to write the result, as logits; may be logits.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.softmax_cross_entropy_vjp(1.0, np.zeros((1, 2), np.float32), np.array([1])).tolist()
    [[0.5, -0.5]]
    """
    raise NotImplementedError


# The operands by their places in the schema: the prediction, the target, the gradient by the losses, the result.
_X, _TARGET, _DLOSSES, _DX = (operand["name"] for operand in SCHEMAS["cross_entropy"]["operands"][:4])


def _reference(*, scale: float, reduction: str, **given: Array) -> Mapping[str, Any]:
    logits, labels, dlosses = given[_X], given[_TARGET], given.get(_DLOSSES)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    hot = np.eye(logits.shape[-1])[labels]
    factor = scale / max(labels.size, 1) if reduction == "mean" else scale
    dlogits = (np.exp(logs) - hot) * factor * (1 if dlosses is None else dlosses[..., np.newaxis])
    sums = dlogits.reshape(-1, logits.shape[-1]).sum(axis=0)
    chosen = np.take_along_axis(logs, np.asarray(labels, np.int64)[..., np.newaxis], -1)[..., 0]
    return {"losses": -chosen, _DX: dlogits, "column_sums": sums}


def _torch(*, scale: float, reduction: str, **given: Any) -> Mapping[str, Any]:
    import torch

    logits, labels, dlosses = given[_X].detach().requires_grad_(), given[_TARGET], given.get(_DLOSSES)
    rows = logits.reshape(-1, logits.shape[-1])
    losses = torch.nn.functional.cross_entropy(rows, labels.long().reshape(-1), reduction="none").reshape(labels.shape)
    total = (losses if dlosses is None else losses * dlosses).sum() * scale
    if reduction == "mean":
        total = total / max(labels.numel(), 1)
    (gradient,) = torch.autograd.grad(total, logits)
    return {"losses": losses.detach(), _DX: gradient}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    logits, labels = rng.standard_normal((rows, 19)) * 3, rng.integers(0, 19, rows)
    yield {_X: logits, _TARGET: labels, _DLOSSES: rng.standard_normal(rows), "scale": 0.5}
    for reduction in ("mean", "sum"):
        yield {_X: logits, _TARGET: labels.astype(np.int32), "reduction": reduction}
    yield {_X: rng.standard_normal((rows, 2, 3)), _TARGET: rng.integers(0, 3, (rows, 2))}


declare("cross_entropy", reference=_reference, samples=_samples, torch=_torch)
