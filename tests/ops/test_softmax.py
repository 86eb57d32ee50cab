from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import FLOATS, ISAS, LAYOUTS, isa, laid_out, log_softmax


@settings(deadline=None, max_examples=300)
@given(
    shape=st.one_of(
        st.tuples(st.integers(0, 40), st.integers(1, 150)),
        st.tuples(st.integers(1, 200)),
        st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 20)),
    ),
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    level=st.sampled_from(ISAS),
    axis=st.sampled_from((-1, 0)),
    scale=st.sampled_from((1.0, 30.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_float64(
    shape: tuple[int, ...], dtype: Any, layouts: tuple[str, str], level: str, axis: int, scale: float, seed: int
) -> None:
    if shape[axis] == 0:
        axis = -1
    rng = np.random.default_rng(seed)
    x = laid_out((rng.standard_normal(shape) * scale).astype(dtype), layouts[0])
    dy = laid_out(rng.standard_normal(shape).astype(dtype), layouts[1])
    eps = float(np.finfo(dtype).eps)
    with isa(level):
        y, log_y = gr.ops.softmax(x, axis=axis), gr.ops.log_softmax(x, axis=axis)
        dx, log_dx = gr.ops.softmax_vjp(dy, y, axis=axis), gr.ops.log_softmax_vjp(dy, log_y, axis=axis)
    want = log_softmax(x.astype(np.float64), axis)
    assert (np.abs(log_y - want) <= 8 * eps * (1 + np.abs(want))).all()
    assert (np.abs(y - np.exp(want)) <= (8 + 4 * scale) * eps).all()
    wide = dy.astype(np.float64)
    want_dx = y * (wide - (wide * y).sum(axis=axis, keepdims=True, dtype=np.float64))
    # Each of n additions may round by half a unit, and where all numbers are equal, all of them round the same way.
    bound = (8 + x.shape[axis] / 2) * eps * (4 + np.abs(wide).sum(axis=axis, keepdims=True))
    assert (np.abs(dx - want_dx) <= bound).all()
    want_log = wide - np.exp(log_y.astype(np.float64)) * wide.sum(axis=axis, keepdims=True)
    assert (np.abs(log_dx - want_log) <= bound).all()


def test_another_axis_writes_to_out() -> None:
    x = np.random.default_rng(0).standard_normal((5, 6, 7))
    for axis in (0, 1, 2, -3):
        out = np.zeros_like(x)
        assert gr.ops.softmax(x, axis=axis, out=out) is out
        assert np.allclose(out, np.exp(log_softmax(x, axis)), rtol=1e-13)


def test_misuse_is_named() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"\[softmax\] axis is 2, x is \(2, 3\): must be between -2 and 1"):
        gr.ops.softmax(x, axis=2)
    with pytest.raises(ValueError, match=r"\[log_softmax\] x is a scalar"):
        gr.ops.log_softmax(np.float32(1).reshape(()))
    with pytest.raises(TypeError, match=r"\[softmax\] axis is a str"):
        gr.ops.softmax(x, axis="last")
