from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import FLOATS, ISAS, LAYOUTS, Array, isa, laid_out, shapes

ROOT = np.sqrt(2 / np.pi)


def sigmoid(x: Array) -> Array:
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x)))


def gelu_inner(x: Array) -> Array:
    return 2 * ROOT * (x + 0.044715 * x**3)


FORWARD = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * sigmoid(gelu_inner(x)),
    "silu": lambda x: x * sigmoid(x),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
}
# By the output for relu, tanh and sigmoid, by the input for gelu and silu.
SLOPE = {
    "relu": lambda y: (y > 0).astype(float),
    "gelu": lambda x: (
        sigmoid(gelu_inner(x))
        + x * sigmoid(gelu_inner(x)) * sigmoid(-gelu_inner(x)) * 2 * ROOT * (1 + 3 * 0.044715 * x**2)
    ),
    "silu": lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x),
    "tanh": lambda y: 1 - y**2,
    "sigmoid": lambda y: y * (1 - y),
}
NAMES = tuple(FORWARD)
NEED_INPUT = ("gelu", "silu")


@settings(deadline=None, max_examples=300)
@given(
    name=st.sampled_from(NAMES),
    shape=shapes,
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    level=st.sampled_from(ISAS),
    scale=st.sampled_from((1e-6, 1.0, 10.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_float64(
    name: str, shape: tuple[int, ...], dtype: Any, layouts: tuple[str, str], level: str, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = laid_out((rng.standard_normal(shape) * scale).astype(dtype), layouts[0])
    dy = laid_out(rng.standard_normal(shape).astype(dtype), layouts[1])
    eps = float(np.finfo(dtype).eps)
    with isa(level):
        y = getattr(gr.ops, name)(x)
        source = x if name in NEED_INPUT else y
        dx = getattr(gr.ops, f"{name}_vjp")(dy, source)
    assert y.dtype == dx.dtype == dtype
    assert y.shape == dx.shape == shape
    want = FORWARD[name](x.astype(np.float64))
    assert (np.abs(y - want) <= 16 * eps * (np.abs(want) + 1e-2 * min(scale, 1))).all()
    slope = SLOPE[name](source.astype(np.float64))
    assert (np.abs(dx - dy * slope) <= 16 * eps * np.abs(dy)).all()


@pytest.mark.parametrize("name", NAMES)
def test_out(name: str) -> None:
    rng = np.random.default_rng(0)
    function, vjp = getattr(gr.ops, name), getattr(gr.ops, f"{name}_vjp")
    x, dy = rng.standard_normal((6, 9)), rng.standard_normal((6, 9))
    want, want_dx = function(x), vjp(dy, x)
    for layout in ("plain", "fortran", "padded", "every other", "offset"):
        out = laid_out(np.zeros((6, 9)), layout)
        assert function(x, out=out) is out
        assert (out == want).all()
        assert vjp(dy, x, out=out) is out
        assert (out == want_dx).all()
    inplace = x.copy()
    assert function(inplace, out=inplace) is inplace
    assert (inplace == want).all()
    shifted = np.zeros(13 * 4)
    shifted[:48] = np.resize(x, 48)
    want = function(shifted[:48].copy())
    function(shifted[:48], out=shifted[4:])  # overlaps its input
    assert (shifted[4:] == want).all()


def test_threads_change_no_bit() -> None:
    x = np.random.default_rng(0).standard_normal(300_001).astype(np.float32)
    before = gr.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            gr.set_num_threads(threads)
            results.append(gr.ops.gelu(x).tobytes())
    finally:
        gr.set_num_threads(before)
    assert len(set(results)) == 1


def test_misuse_is_named() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(TypeError, match=r"\[relu\] x is of dtype int64: must be float32 or float64"):
        gr.ops.relu(np.zeros(3, np.int64))
    with pytest.raises(TypeError, match=r"\[relu\] x is a list of str"):
        gr.ops.relu(["1.0"])
    with pytest.raises(ValueError, match=r"\[tanh_vjp\] dy is \(2, 3\), y is \(3, 2\): must be the same"):
        gr.ops.tanh_vjp(x, x.T)
    with pytest.raises(TypeError, match=r"\[gelu_vjp\] dy is float32, x is float64"):
        gr.ops.gelu_vjp(x, x.astype(np.float64))
    with pytest.raises(ValueError, match=r"\[silu\] out is \(3, 2\): must be \(2, 3\)"):
        gr.ops.silu(x, out=np.zeros((3, 2), np.float32))
    with pytest.raises(TypeError, match=r"\[sigmoid\] out is of dtype float64"):
        gr.ops.sigmoid(x, out=np.zeros((2, 3)))
    frozen = np.zeros((2, 3), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        gr.ops.sigmoid(x, out=frozen)
