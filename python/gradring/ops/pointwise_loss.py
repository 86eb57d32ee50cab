"""mse and binary_cross_entropy, and their vjps."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["binary_cross_entropy", "binary_cross_entropy_vjp", "mse", "mse_vjp"]


@eager(
    "mse", results=("losses",), names={"pred": "predictions", "target": "targets"}, hidden="totals", outcome="losses"
)
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
    results=("gradient",),
    names={"pred": "predictions", "target": "targets", "dloss": ("dlosses", "scale")},
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


@eager("binary_cross_entropy", results=("losses",), names={"logits": "predictions"}, hidden="totals", outcome="losses")
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
    results=("gradient",),
    names={"logits": "predictions", "dloss": ("dlosses", "scale")},
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
