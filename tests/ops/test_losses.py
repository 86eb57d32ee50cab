from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import FLOATS, ISAS, LAYOUTS, isa, laid_out, log_softmax

settings_for_all = settings(deadline=None, max_examples=200)


@settings_for_all
@given(
    rows=st.integers(0, 100),
    classes=st.integers(1, 120),
    dtype=st.sampled_from(FLOATS),
    label_dtype=st.sampled_from((np.int32, np.int64, np.uint8)),
    layout=st.sampled_from(LAYOUTS),
    level=st.sampled_from(ISAS),
    seed=st.integers(0, 2**32 - 1),
)
def test_cross_entropy_agrees_with_float64(
    rows: int, classes: int, dtype: Any, label_dtype: Any, layout: str, level: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = laid_out((rng.standard_normal((rows, classes)) * 3).astype(dtype), layout)
    labels = rng.integers(0, classes, rows).astype(label_dtype)
    dlosses = rng.standard_normal(rows).astype(dtype)
    with isa(level):
        losses = gr.ops.softmax_cross_entropy(logits, labels)
        gradient = gr.ops.softmax_cross_entropy_vjp(dlosses, logits, labels)
        mean = gr.ops.softmax_cross_entropy(logits, labels, reduction="mean") if rows else 0.0
        mean_gradient = gr.ops.softmax_cross_entropy_vjp(2.0, logits, labels, reduction="mean") if rows else gradient
    eps = float(np.finfo(dtype).eps)
    logs = log_softmax(logits.astype(np.float64), -1) if rows else np.zeros((0, classes))
    want = -logs[np.arange(rows), labels]
    assert losses.shape == (rows,)
    assert losses.dtype == dtype
    assert (np.abs(losses - want) <= 32 * eps).all()
    wide = np.exp(logs) - np.eye(classes)[labels]
    assert (np.abs(gradient - wide * dlosses[:, None]) <= 16 * eps * (1 + np.abs(dlosses[:, None]))).all()
    if rows:
        assert abs(mean - want.mean()) <= 32 * eps
        assert (np.abs(mean_gradient - wide * 2 / rows) <= 32 * eps / rows).all()


@settings_for_all
@given(
    name=st.sampled_from(("mse", "binary_cross_entropy")),
    shape=st.one_of(
        st.tuples(st.integers(1, 200)),
        st.tuples(st.integers(1, 70), st.integers(1, 40)),
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    ),
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    level=st.sampled_from(ISAS),
    seed=st.integers(0, 2**32 - 1),
)
def test_pointwise_losses_agree_with_float64(
    name: str, shape: tuple[int, ...], dtype: Any, layouts: tuple[str, str], level: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    p = laid_out((rng.standard_normal(shape) * 3).astype(dtype), layouts[0])
    t = laid_out((rng.random(shape) if name != "mse" else rng.standard_normal(shape)).astype(dtype), layouts[1])
    d = rng.standard_normal(shape[0]).astype(dtype)
    loss, vjp = getattr(gr.ops, name), getattr(gr.ops, f"{name}_vjp")
    with isa(level):
        mean, losses = loss(p, t), loss(p, t, reduction="sample")
        gradient, by_sample = vjp(3.0, p, t), vjp(d, p, t, reduction="sample")
    eps = float(np.finfo(dtype).eps)
    x, y = p.astype(np.float64), t.astype(np.float64)
    if name == "mse":
        points, slopes = (x - y) ** 2, 2 * (x - y)
    else:
        points = np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))
        slopes = 1 / (1 + np.exp(-x)) - y
    want = points.reshape(shape[0], -1).mean(axis=1)
    assert losses.shape == (shape[0],)
    assert (np.abs(losses - want) <= 32 * eps * (1 + want)).all()
    assert isinstance(mean, float)
    assert abs(mean - points.mean()) <= 32 * eps * (1 + points.mean())
    assert (np.abs(gradient - slopes * 3 / x.size) <= 32 * eps * (1 + np.abs(slopes)) / x.size).all()
    scale = (d * shape[0] / x.size).reshape(-1, *[1] * (len(shape) - 1))
    assert (np.abs(by_sample - slopes * scale) <= 32 * eps * (1 + np.abs(slopes)) * np.abs(scale)).all()


def test_labels_out_of_range_are_named_and_never_followed() -> None:
    logits = np.zeros((4, 10), np.float32)
    for bad in (10, -1, 2**40, -(2**62)):
        labels = np.array([1, 2, bad, 50])
        for call in (
            lambda labels=labels: gr.ops.softmax_cross_entropy(logits, labels),
            lambda labels=labels: gr.ops.softmax_cross_entropy(logits, labels, reduction="mean"),
            lambda labels=labels: gr.ops.softmax_cross_entropy_vjp(1.0, logits, labels),
        ):
            with pytest.raises(ValueError, match=rf"label 2 is {bad}: must be between 0 and 9"):
                call()


def test_misuse_is_named() -> None:
    logits, labels = np.zeros((4, 3), np.float32), np.zeros(4, np.int64)
    cross_entropy, vjp = gr.ops.softmax_cross_entropy, gr.ops.softmax_cross_entropy_vjp
    with pytest.raises(ValueError, match=r"logits is \(4, 3\), labels is \(3,\): labels must have the shape"):
        cross_entropy(logits, labels[:3])
    with pytest.raises(TypeError, match=r"labels is of dtype float32: must be int32, int64 or uint8"):
        cross_entropy(logits, logits[:, 0])
    with pytest.raises(ValueError, match=r"reduction is 'total': must be 'sample', 'mean' or 'sum'"):
        cross_entropy(logits, labels, reduction="total")
    with pytest.raises(ValueError, match=r"out is given: the mean and the sum are numbers"):
        cross_entropy(logits, labels, reduction="mean", out=np.zeros(4, np.float32))
    with pytest.raises(ValueError, match=r"dlosses is \(3,\): must have one number for each of 4 samples"):
        vjp(np.zeros(3, np.float32), logits, labels)
    with pytest.raises(ValueError, match=r"dlosses is an array: must be a number"):
        vjp(np.zeros(4, np.float32), logits, labels, reduction="mean")
    with pytest.raises(ValueError, match=r"\[mse\] pred is \(4, 3\), target is \(3, 4\): must be the same"):
        gr.ops.mse(logits, logits.T)


def test_in_place_gradient() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((50, 10)), rng.integers(0, 10, 50)
    want = gr.ops.softmax_cross_entropy_vjp(1.0, logits, labels)
    assert gr.ops.softmax_cross_entropy_vjp(1.0, logits, labels, out=logits) is logits
    assert (logits == want).all()
