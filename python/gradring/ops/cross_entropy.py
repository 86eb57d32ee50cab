"""The cross entropy of a softmax with class numbers, and its vjp."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["softmax_cross_entropy", "softmax_cross_entropy_vjp"]


@eager("cross_entropy", results=("losses",), hidden="totals", outcome="losses")
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


@eager("cross_entropy", results=("dlogits",), names={"dlosses": ("dlosses", "scale")}, hidden="totals")
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
