from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import FLOATS, ISAS, LAYOUTS, Array, isa, laid_out


@settings(deadline=None, max_examples=150)
@given(
    shape=st.tuples(st.integers(2, 150), st.integers(0, 90)),
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(*[st.sampled_from([name for name in LAYOUTS if name != "repeated"])] * 2),
    level=st.sampled_from(ISAS),
    affine=st.sampled_from(("both", "weight", "neither")),
    training=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_float64(
    shape: tuple[int, int], dtype: Any, layouts: tuple[str, str], level: str, affine: str, training: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = laid_out(rng.standard_normal(shape).astype(dtype), layouts[0])
    dy = laid_out(rng.standard_normal(shape).astype(dtype), layouts[1])
    columns = shape[1]
    weight = rng.standard_normal(columns).astype(dtype) if affine != "neither" else None
    bias = rng.standard_normal(columns).astype(dtype) if affine == "both" else None
    running_mean, running_var = rng.standard_normal(columns).astype(dtype), rng.random(columns).astype(dtype) + 1
    before = running_mean.copy(), running_var.copy()
    eps = 1e-2
    with isa(level):
        y = gr.ops.batch_norm(x, weight, bias, running_mean, running_var, training=training, momentum=0.3, eps=eps)
        moments = () if training else before
        dx, dweight, dbias = gr.ops.batch_norm_vjp(dy, x, weight, *moments, training=training, eps=eps)
    wide, w, slopes = x.astype(np.float64), 1 if weight is None else weight, dy.astype(np.float64)
    mean, var = (wide.mean(0), wide.var(0)) if training else before
    r = 1 / np.sqrt(var + eps)
    hat = (wide - mean) * r
    bound = 200 * float(np.finfo(dtype).eps)
    assert y.dtype == dx.dtype == dweight.dtype == dbias.dtype == dtype
    assert np.allclose(y, hat * w + (0 if bias is None else bias), rtol=bound, atol=10 * bound)
    if training:
        assert np.allclose(running_mean, 0.7 * before[0] + 0.3 * mean, rtol=bound, atol=bound)
        assert np.allclose(running_var, 0.7 * before[1] + 0.3 * wide.var(0, ddof=1), rtol=bound, atol=bound)
    else:
        assert (running_mean == before[0]).all()
        assert (running_var == before[1]).all()
    want_dweight, want_dbias = (slopes * hat).sum(0), slopes.sum(0)
    sizes = (np.abs(slopes) * (1 + np.abs(hat))).sum(0)
    assert (np.abs(dweight - want_dweight) <= bound * (1 + sizes) * r).all()
    assert (np.abs(dbias - want_dbias) <= bound * (1 + sizes)).all()
    want = slopes - (want_dbias + hat * want_dweight) / len(x) if training else slopes
    assert (np.abs(dx - want * w * r) <= bound * (1 + np.abs(w)) * r * (4 + sizes / len(x))).all()


@pytest.mark.parametrize("training", [True, False])
def test_vjp_agrees_with_finite_differences(training: bool) -> None:
    rng = np.random.default_rng(1)
    x, weight, bias = rng.standard_normal((7, 5)), rng.standard_normal(5), rng.standard_normal(5)
    moments = (rng.standard_normal(5), rng.random(5) + 0.5)

    def forward(x: Array, weight: Array, bias: Array) -> Array:
        return gr.ops.batch_norm(x, weight, bias, *(m.copy() for m in moments), training=training)

    def vjp(dy: Array, x: Array, weight: Array, bias: Array) -> tuple[Array, ...]:
        return gr.ops.batch_norm_vjp(dy, x, weight, *(() if training else moments), training=training)

    assert gr.check_grad(forward, x, weight, bias, vjp=vjp) < 1e-6


def test_strided_running_moments_are_updated_in_place() -> None:
    x = np.random.default_rng(0).standard_normal((9, 4))
    room = np.ones((2, 8))
    mean, var = room[0, ::2], room[1, ::2]
    gr.ops.batch_norm(x, None, None, mean, var, training=True, momentum=1.0)
    assert np.allclose(mean, x.mean(0))
    assert np.allclose(var, x.var(0, ddof=1))
    assert (room[:, 1::2] == 1).all()


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 1003, 130)).astype(np.float32)
    before = gr.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            gr.set_num_threads(threads)
            moments = np.zeros(130, np.float32), np.ones(130, np.float32)
            made = [gr.ops.batch_norm(x, None, None, *moments, training=True), *moments]
            made += [
                *gr.ops.batch_norm_vjp(dy, x, training=True),
                *gr.ops.batch_norm_vjp(dy, x, None, *moments, training=False),
            ]
            results.append(tuple(array.tobytes() for array in made))
    finally:
        gr.set_num_threads(before)
    assert len(set(results)) == 1


def test_out() -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 40, 9))
    want, wants = gr.ops.batch_norm(x, training=True), gr.ops.batch_norm_vjp(dy, x, training=True)
    for layout in ("plain", "fortran", "padded", "every other", "offset"):
        out = laid_out(np.zeros((40, 9)), layout)
        assert gr.ops.batch_norm(x, training=True, out=out) is out
        assert (out == want).all()
        dx, dweight, dbias = gr.ops.batch_norm_vjp(dy, x, training=True, out=(out, None, None))
        assert dx is out
        assert all((got == wanted).all() for got, wanted in zip((dx, dweight, dbias), wants, strict=True))
    for place in (0, 1):
        arrays = [dy.copy(), x.copy()]
        assert (gr.ops.batch_norm_vjp(*arrays, training=True, out=(arrays[place], None, None))[0] == wants[0]).all()


def test_misuse_is_named() -> None:
    x, zeros, ones = np.zeros((2, 3), np.float32), np.zeros(3, np.float32), np.ones(3, np.float32)
    with pytest.raises(
        ValueError, match=r"\[batch_norm\] x is \(2, 3\), running_var is \(2,\): running_var must be \(3,\)"
    ):
        gr.ops.batch_norm(x, None, None, zeros, ones[:2], training=True)
    with pytest.raises(ValueError, match=r"\[batch_norm\] running_var is missing: without training"):
        gr.ops.batch_norm(x, None, None, zeros, training=False)
    with pytest.raises(ValueError, match=r"\[batch_norm\] x is \(1, 3\): training needs at least 2 rows.*drop_last"):
        gr.ops.batch_norm(x[:1], training=True)
    with pytest.raises(ValueError, match=r"\[batch_norm\] x is \(3,\): must have 2 dimensions"):
        gr.ops.batch_norm(zeros, training=True)
    with pytest.raises(ValueError, match=r"\[batch_norm\] momentum is 1\.5: must be between 0 and 1"):
        gr.ops.batch_norm(x, training=True, momentum=1.5)
    with pytest.raises(TypeError, match=r"\[batch_norm\] training is missing"):
        gr.ops.batch_norm(x)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"\[batch_norm_vjp\] variance is missing"):
        gr.ops.batch_norm_vjp(x, x, None, zeros, training=True)
    assert gr.ops.batch_norm(x[:0], None, None, zeros, ones, training=True).shape == (0, 3)
    assert zeros.tolist() == [0, 0, 0]
