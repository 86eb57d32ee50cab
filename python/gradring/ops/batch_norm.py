"""batch_norm and its vjp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import DY, Derivative, declare
from gradring.ops._eager import eager
from gradring.ops._gradients import CONSTANT

Array = NDArray[Any]

__all__ = ["batch_norm", "batch_norm_vjp"]


def _gradients(dy: Any, arrays: list[Any], output: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
    x, weight, _, mean, var = [*arrays, None, None, None, None][:5]
    moments = (None, None) if options["training"] else (mean, var)
    passed = {name: options[name] for name in ("training", "eps") if name in options}
    made = batch_norm_vjp(dy, x, weight, *moments, **passed)
    return (*made, CONSTANT, CONSTANT)[: len(arrays)]


@eager("batch_norm", gradients=_gradients)
def batch_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """``(x - mean) / sqrt(variance + eps) * weight + bias``, with one mean and one variance per column.

    Training uses those of the batch (Ioffe and Szegedy, arXiv:1502.03167), and moves the running moments, if they are
    given, towards them in place: ``running = (1 - momentum) * running + momentum * batch``, where the batch's variance is
    the unbiased one, as in PyTorch. Otherwise the running moments normalize the columns, and do not change.

    Args:
        x: (N, C); float32 or float64, any strides. Training needs at least 2 rows, or none.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        running_mean, running_var: (C,), writable; may be None in training.
        training: whether to normalize by the batch's own moments.
        momentum: the weight of the batch in the running moments, in [0, 1].
        eps: at least 0.
        out: where to write the result, an array like x; may be x.

    Returns:
        ``out`` if given, else a new array like x. The same bits for any number of threads.

    Raises:
        ValueError: a vector that does not have one number per column; a batch of one row in training; no running moments
            without training.
        TypeError: dtypes that differ or are neither float32 nor float64.

    >>> import numpy as np, gradring as gr
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> gr.ops.batch_norm(x, None, None, mean, var, training=True, eps=0.0).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    >>> mean.round(6).tolist(), var.round(6).tolist()
    ([0.2, 2.0], [1.1, 20.9])
    """
    raise NotImplementedError


@eager("batch_norm_vjp", results=("dx", "dweight", "dbias"))
def batch_norm_vjp(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike | None = None,
    mean: ArrayLike | None = None,
    variance: ArrayLike | None = None,
    *,
    training: bool,
    eps: float = 1e-5,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of batch_norm by its input, its weight and its bias.

    Args:
        dy: the gradient with respect to the output, (N, C); float32 or float64, any strides.
        x: the input of batch_norm; the shape and dtype of dy.
        weight: (C,), or None for ones.
        mean, variance: (C,), those that batch_norm used: the running ones, or in training the batch's (the variance
            without Bessel's correction); in training both may be None, and are computed again.
        training: the same as for batch_norm.
        eps: the same as for batch_norm.
        out: (dx, dweight, dbias), arrays to write to; None in a place makes a new array. dx may be dy or x.

    Returns:
        dx, like x; dweight and dbias, (C,). The same bits for any number of threads.

    >>> import numpy as np, gradring as gr
    >>> dx, dweight, dbias = gr.ops.batch_norm_vjp(np.eye(2), np.array([[1.0, 10.0], [3.0, 30.0]]), training=True, eps=0.0)
    >>> bool(np.abs(dx).max() < 1e-12), dweight.tolist(), dbias.tolist()
    (True, [-1.0, 1.0], [1.0, 1.0])
    """
    raise NotImplementedError


Moments = tuple[Any, Any]


def _moments(x: Array, running_mean: Any, running_var: Any, training: bool) -> Moments:
    if not training:
        return running_mean, running_var
    return (x.mean(axis=0), x.var(axis=0)) if len(x) else (np.zeros(x.shape[1]), np.ones(x.shape[1]))


def _moved(moments: Moments, running: Moments, rows: int, momentum: float) -> Moments:
    """The running moments after a batch."""
    unbiased = moments[1] * (rows / (rows - 1) if rows > 1 else 1)
    mean, var = (
        old * (1 - momentum) + new * momentum for old, new in zip(running, (moments[0], unbiased), strict=True)
    )
    return mean, var


def _reference(
    x: Array,
    weight: Any = 1,
    bias: Any = 0,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    training: bool,
    momentum: float,
    eps: float,
) -> Mapping[str, Any]:
    mean, var = _moments(x, running_mean, running_var, training)
    results = {"y": (x - mean) / np.sqrt(var + eps) * weight + bias}
    if training and len(x):
        results |= {"mean": mean, "variance": var}
    if running_mean is not None:
        moves = training and len(x) > 0
        running = (running_mean, running_var)
        moved = _moved((mean, var), running, len(x), momentum) if moves else running
        results |= dict(zip(("running_mean", "running_var"), moved, strict=True))
    return results


def _reference_vjp(
    dy: Array, x: Array, weight: Any = 1, mean: Any = None, variance: Any = None, *, training: bool, eps: float
) -> Mapping[str, Any]:
    mean, variance = _moments(x, mean, variance, mean is None)
    scale = 1 / np.sqrt(variance + eps)
    hat = (x - mean) * scale
    dweight, dbias = (dy * hat).sum(axis=0), dy.sum(axis=0)
    d = dy - (dbias + hat * dweight) / len(x) if training and len(x) else dy
    return {"dx": d * scale * weight, "dweight": dweight, "dbias": dbias}


def _reference_update(
    running_mean: Array, running_var: Array, mean: Array, variance: Array, *, rows: int, momentum: float
) -> Mapping[str, Any]:
    moved = _moved((mean, variance), (running_mean, running_var), rows, momentum)
    return dict(zip(("running_mean", "running_var"), moved, strict=True))


def _torch(
    x: Any,
    weight: Any = None,
    bias: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    training: bool,
    momentum: float,
    eps: float,
) -> Mapping[str, Any]:
    import torch

    running = [None if r is None else r.clone() for r in (running_mean, running_var)]
    y = torch.nn.functional.batch_norm(x, *running, weight, bias, training, momentum, eps)
    return {"y": y} if running_mean is None else {"y": y, "running_mean": running[0], "running_var": running[1]}


def _reference_inference(
    x: Array, weight: Any = 1, bias: Any = 0, *, mean: Array, variance: Array, eps: float
) -> Mapping[str, Any]:
    return {"y": (x - mean) / np.sqrt(variance + eps) * weight + bias}


def _torch_inference(
    x: Any, weight: Any = None, bias: Any = None, *, mean: Any, variance: Any, eps: float
) -> Mapping[str, Any]:
    import torch

    return {"y": torch.nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)}


def _torch_update(
    running_mean: Any, running_var: Any, mean: Any, variance: Any, *, rows: int, momentum: float
) -> Mapping[str, Any]:
    unbiased = variance * rows / max(rows - 1, 1)
    return {
        "running_mean": running_mean.lerp(mean, momentum),
        "running_var": running_var.lerp(unbiased, momentum),
    }


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    moments = {"running_mean": rng.standard_normal(19), "running_var": rng.random(19) + 0.5}
    weight, bias = rng.standard_normal((2, 19))
    x = rng.standard_normal((rows, 19))
    yield {"x": x, "weight": weight, "bias": bias, **moments, "training": False, "eps": 1e-2}
    if rows != 1:
        yield {"x": x, "weight": weight, "bias": bias, **moments, "training": True, "momentum": 0.3}
        yield {"x": rng.standard_normal((rows, 5)), "training": True, "eps": 1e-2}


def _samples_vjp(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for sample in _samples(rng, rows):
        kept: dict[str, Any] = {name: sample[name] for name in ("x", "weight", "training", "eps") if name in sample}
        moments = _moments(sample["x"], sample.get("running_mean"), sample.get("running_var"), sample["training"])
        given = dict(zip(("mean", "variance"), moments, strict=True)) if "weight" in sample else {}
        yield {"dy": rng.standard_normal(sample["x"].shape), **kept, **given}


def _samples_inference(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    moments = {"mean": rng.standard_normal(19), "variance": rng.random(19) + 0.5}
    weight, bias = rng.standard_normal((2, 19))
    yield {"x": rng.standard_normal((rows, 19)), "weight": weight, "bias": bias, **moments, "eps": 1e-2}
    yield {"x": rng.standard_normal((rows, 19)), **moments}


def _samples_update(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    names = ("running_mean", "running_var", "mean", "variance")
    yield {**dict(zip(names, rng.random((4, rows)) + 0.5, strict=True)), "rows": 7, "momentum": 0.3}
    yield {**dict(zip(names, rng.random((4, 3)), strict=True)), "rows": 1}


def _derivative(attributes: Mapping[str, Any]) -> Derivative:
    moments = ("mean", "variance") if attributes["training"] else ("running_mean", "running_var")
    reads = {"dy": DY, "x": "x", "weight": "weight", "mean": moments[0], "variance": moments[1]}
    return Derivative("batch_norm_vjp", reads, {"x": "dx", "weight": "dweight", "bias": "dbias"})


declare("batch_norm", reference=_reference, samples=_samples, torch=_torch, derivative=_derivative)
declare("batch_norm_vjp", reference=_reference_vjp, samples=_samples_vjp, tolerance=400)
declare(
    "batch_norm_inference",
    reference=_reference_inference,
    samples=_samples_inference,
    torch=_torch_inference,
    derivative=Derivative(
        "batch_norm_vjp",
        {"dy": DY, "x": "x", "weight": "weight", "mean": "mean", "variance": "variance"},
        {"x": "dx", "weight": "dweight", "bias": "dbias"},
        lambda attributes, shapes: {"training": False},
    ),
)
declare("batch_norm_update", reference=_reference_update, samples=_samples_update, torch=_torch_update)
