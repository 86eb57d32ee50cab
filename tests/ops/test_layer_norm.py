from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import FLOATS, ISAS, LAYOUTS, Array, isa, laid_out


def reference(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """The result, the normalized rows, and what they were divided by."""
    wide = x.astype(np.float64)
    deviation = np.sqrt(wide.var(axis=-1, keepdims=True) + eps)
    hat = (wide - wide.mean(axis=-1, keepdims=True)) / deviation
    return hat * (1 if weight is None else weight) + (0 if bias is None else bias), hat, deviation


@settings(deadline=None, max_examples=150)
@given(
    shape=st.one_of(
        st.tuples(st.integers(0, 70), st.integers(2, 90)),
        st.tuples(st.integers(2, 200)),
        st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(2, 40)),
    ),
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    level=st.sampled_from(ISAS),
    affine=st.sampled_from(("both", "weight", "neither")),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_float64(
    shape: tuple[int, ...], dtype: Any, layouts: tuple[str, str], level: str, affine: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = laid_out(rng.standard_normal(shape).astype(dtype), layouts[0])
    dy = laid_out(rng.standard_normal(shape).astype(dtype), layouts[1])
    weight = rng.standard_normal(shape[-1]).astype(dtype) if affine != "neither" else None
    bias = rng.standard_normal(shape[-1]).astype(dtype) if affine == "both" else None
    eps = 1e-3
    with isa(level):
        y = gr.ops.layer_norm(x, weight, bias, eps=eps)
        dx, dweight, dbias = gr.ops.layer_norm_vjp(dy, x, weight, eps=eps)
    want, hat, deviation = reference(x, weight, bias, eps)
    bound = 400 * float(np.finfo(dtype).eps)
    assert y.dtype == dx.dtype == dweight.dtype == dbias.dtype == dtype
    assert y.shape == dx.shape == shape
    assert dweight.shape == dbias.shape == (shape[-1],)
    assert np.allclose(y, want, rtol=bound, atol=bound / deviation.min(initial=1))
    g = dy.astype(np.float64) * (1 if weight is None else weight)
    want_dx = (g - g.mean(-1, keepdims=True) - hat * (g * hat).mean(-1, keepdims=True)) / deviation
    assert (np.abs(dx - want_dx) <= bound * (1 + np.abs(g).max(initial=0)) / deviation**2).all()
    axes = tuple(range(len(shape) - 1))
    scale = 1 + np.abs(dy * hat).sum(axis=axes)
    assert (np.abs(dweight - (dy * hat).sum(axis=axes)) <= bound * scale / deviation.min(initial=1)).all()
    assert (np.abs(dbias - dy.sum(axis=axes, dtype=np.float64)) <= bound * (1 + np.abs(dy).sum(axis=axes))).all()


def test_vjp_agrees_with_finite_differences() -> None:
    rng = np.random.default_rng(1)
    x, weight, bias = rng.standard_normal((5, 7)), rng.standard_normal(7), rng.standard_normal(7)

    def vjp(dy: Array, x: Array, weight: Array, bias: Array) -> tuple[Array, ...]:
        return gr.ops.layer_norm_vjp(dy, x, weight)

    assert gr.check_grad(gr.ops.layer_norm, x, weight, bias, vjp=vjp) < 1e-6


def test_a_constant_row_gives_the_bias_and_has_no_gradient() -> None:
    x = np.full((3, 9), 7.0, np.float32)
    bias = np.arange(9, dtype=np.float32)
    assert (gr.ops.layer_norm(x, None, bias) == bias).all()
    dx, dweight, _ = gr.ops.layer_norm_vjp(np.ones_like(x), x)
    assert (dx == 0).all()
    assert (dweight == 0).all()


def test_nan_stays_in_its_row() -> None:
    x = np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)
    x[2, 3] = np.nan
    assert np.isnan(gr.ops.layer_norm(x)).all(axis=1).tolist() == [False, False, True, False]


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 1003, 130)).astype(np.float32)
    before = gr.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            gr.set_num_threads(threads)
            made = (gr.ops.layer_norm(x), *gr.ops.layer_norm_vjp(dy, x))
            results.append(tuple(array.tobytes() for array in made))
    finally:
        gr.set_num_threads(before)
    assert len(set(results)) == 1


def test_out() -> None:
    rng = np.random.default_rng(0)
    x, dy, weight = rng.standard_normal((6, 9)), rng.standard_normal((6, 9)), rng.standard_normal(9)
    want, wants = gr.ops.layer_norm(x, weight), gr.ops.layer_norm_vjp(dy, x, weight)
    for layout in ("plain", "fortran", "padded", "every other", "offset"):
        out = laid_out(np.zeros((6, 9)), layout)
        assert gr.ops.layer_norm(x, weight, out=out) is out
        assert (out == want).all()
        sums = laid_out(np.zeros((1, 9)), layout)[0]
        dx, dweight, dbias = gr.ops.layer_norm_vjp(dy, x, weight, out=(out, sums, None))
        assert dx is out
        assert dweight is sums
        assert all((got == wanted).all() for got, wanted in zip((dx, dweight, dbias), wants, strict=True))
    inplace = x.copy()
    assert gr.ops.layer_norm(inplace, weight, out=inplace) is inplace
    assert (inplace == want).all()


def test_misuse_is_named() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"\[layer_norm\] x is \(2, 3\), weight is \(2,\): weight must be \(3,\)"):
        gr.ops.layer_norm(x, np.ones(2, np.float32))
    with pytest.raises(TypeError, match=r"\[layer_norm\] x is float32, bias is float64"):
        gr.ops.layer_norm(x, None, np.ones(3))
    with pytest.raises(ValueError, match=r"\[layer_norm\] eps is -1\.0: must be at least 0"):
        gr.ops.layer_norm(x, eps=-1)
    with pytest.raises(ValueError, match=r"\[layer_norm\] x is a scalar: must have at least one dimension"):
        gr.ops.layer_norm(np.float32(1))
    with pytest.raises(ValueError, match=r"\[layer_norm_vjp\] dy is \(3, 2\), x is \(2, 3\): must be the same"):
        gr.ops.layer_norm_vjp(np.zeros((3, 2), np.float32), x)
    with pytest.raises(ValueError, match=r"\[layer_norm_vjp\] dweight shares memory with weight"):
        weight = np.ones(3, np.float32)
        gr.ops.layer_norm_vjp(x, x, weight, out=(None, weight, None))
