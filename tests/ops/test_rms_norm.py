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
    shape=st.one_of(
        st.tuples(st.integers(0, 70), st.integers(1, 90)),
        st.tuples(st.integers(1, 200)),
        st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 40)),
    ),
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    level=st.sampled_from(ISAS),
    weighted=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_float64(
    shape: tuple[int, ...], dtype: Any, layouts: tuple[str, str], level: str, weighted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = laid_out(rng.standard_normal(shape).astype(dtype), layouts[0])
    dy = laid_out(rng.standard_normal(shape).astype(dtype), layouts[1])
    weight = rng.standard_normal(shape[-1]).astype(dtype) if weighted else None
    eps = 1e-3
    with isa(level):
        y = gr.ops.rms_norm(x, weight, eps=eps)
        dx, dweight = gr.ops.rms_norm_vjp(dy, x, weight, eps=eps)
    wide = x.astype(np.float64)
    rms = np.sqrt((wide**2).mean(axis=-1, keepdims=True) + eps)
    hat, g = wide / rms, dy.astype(np.float64) * (1 if weight is None else weight)
    bound = 50 * float(np.finfo(dtype).eps)
    assert y.dtype == dx.dtype == dweight.dtype == dtype
    assert y.shape == dx.shape == shape
    assert dweight.shape == (shape[-1],)
    assert np.allclose(y, hat * (1 if weight is None else weight), rtol=bound, atol=0)
    terms = np.abs(g) + np.abs(hat) * np.abs(g * hat).mean(-1, keepdims=True)
    assert (np.abs(dx - (g - hat * (g * hat).mean(-1, keepdims=True)) / rms) <= bound * terms / rms).all()
    axes = tuple(range(len(shape) - 1))
    assert (np.abs(dweight - (dy * hat).sum(axis=axes)) <= bound * (1 + np.abs(dy * hat).sum(axis=axes))).all()


def test_vjp_agrees_with_finite_differences() -> None:
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((5, 7)), rng.standard_normal(7)

    def vjp(dy: Array, x: Array, weight: Array) -> tuple[Array, ...]:
        return gr.ops.rms_norm_vjp(dy, x, weight)

    assert gr.check_grad(gr.ops.rms_norm, x, weight, vjp=vjp) < 1e-6


def test_a_row_of_zeros_gives_zeros_and_finite_gradients() -> None:
    x = np.zeros((3, 9), np.float32)
    assert (gr.ops.rms_norm(x) == 0).all()
    dx, dweight = gr.ops.rms_norm_vjp(np.ones_like(x), x, eps=0.25)
    assert (dx == 2).all()  # 1 / sqrt(eps)
    assert (dweight == 0).all()


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 1003, 130)).astype(np.float32)
    before = gr.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            gr.set_num_threads(threads)
            made = (gr.ops.rms_norm(x), *gr.ops.rms_norm_vjp(dy, x))
            results.append(tuple(array.tobytes() for array in made))
    finally:
        gr.set_num_threads(before)
    assert len(set(results)) == 1


def test_out() -> None:
    rng = np.random.default_rng(0)
    x, dy, weight = rng.standard_normal((6, 9)), rng.standard_normal((6, 9)), rng.standard_normal(9)
    want, wants = gr.ops.rms_norm(x, weight), gr.ops.rms_norm_vjp(dy, x, weight)
    for layout in ("plain", "fortran", "padded", "every other", "offset"):
        out = laid_out(np.zeros((6, 9)), layout)
        assert gr.ops.rms_norm(x, weight, out=out) is out
        assert (out == want).all()
        dx, dweight = gr.ops.rms_norm_vjp(dy, x, weight, out=(out, None))
        assert dx is out
        assert (dx == wants[0]).all()
        assert (dweight == wants[1]).all()
    for place in (0, 1):
        arrays = [dy.copy(), x.copy()]
        assert (gr.ops.rms_norm_vjp(*arrays, weight, out=(arrays[place], None))[0] == wants[0]).all()


def test_misuse_is_named() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"\[rms_norm\] x is \(2, 3\), weight is \(2,\): weight must be \(3,\)"):
        gr.ops.rms_norm(x, np.ones(2, np.float32))
    with pytest.raises(TypeError, match=r"\[rms_norm\] x is float32, weight is float64"):
        gr.ops.rms_norm(x, np.ones(3))
    with pytest.raises(ValueError, match=r"\[rms_norm\] eps is -1\.0: must be at least 0"):
        gr.ops.rms_norm(x, eps=-1)
    with pytest.raises(ValueError, match=r"\[rms_norm\] x is a scalar: must have at least one dimension"):
        gr.ops.rms_norm(np.float32(1))
    with pytest.raises(ValueError, match=r"\[rms_norm_vjp\] dweight shares memory with weight"):
        weight = np.ones(3, np.float32)
        gr.ops.rms_norm_vjp(x, x, weight, out=(None, weight))
