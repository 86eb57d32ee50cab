from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import FLOATS, ISAS, LAYOUTS, Array, isa, laid_out, shapes
from op_calls import call

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


def exact_gelu(x: Array) -> tuple[Array, Array]:
    """The value and the slope, in float64, by the complementary error function: nothing cancels in the tail."""
    below = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x.ravel()]).reshape(x.shape)
    return x * below, below + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 4.0, 30.0])
def test_exact_gelu_agrees_with_float64(scale: float, dtype: Any, level: str) -> None:
    rng = np.random.default_rng(int(scale * 1000))
    x = (rng.standard_normal((37, 41)) * scale).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    with isa(level):
        y = gr.ops.gelu(x, approximate="none")
        dx = gr.ops.gelu_vjp(dy, x, approximate="none")
    assert y.dtype == dx.dtype == dtype
    eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    want, slope = exact_gelu(x.astype(np.float64))
    # The truth's own error in the tail is that of -x / sqrt(2), rounded in float64.
    assert (np.abs(y - want) <= (6 * eps + 3e-16 * x.astype(np.float64) ** 2) * np.abs(want) + 1e3 * tiny).all()
    assert (np.abs(dx - dy * slope) <= 8 * eps * np.abs(dy)).all()
    ends = np.array([np.inf, -np.inf, np.nan, 0, -0.0], dtype)
    np.testing.assert_array_equal(gr.ops.gelu(ends, approximate="none"), np.array([np.inf, 0, np.nan, 0, 0], dtype))
    np.testing.assert_array_equal(
        gr.ops.gelu_vjp(np.ones_like(ends), ends, approximate="none"), np.array([1, 0, np.nan, 0.5, 0.5], dtype)
    )


@pytest.mark.parity
def test_exact_gelu_is_the_default_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.gelu(x)
    y.sum().backward()
    np.testing.assert_allclose(gr.ops.gelu(x.detach().numpy(), approximate="none"), y.detach().numpy(), atol=1e-15)
    got = gr.ops.gelu_vjp(np.ones(1001), x.detach().numpy(), approximate="none")
    np.testing.assert_allclose(got, x.grad.numpy(), atol=1e-15)
    assert np.abs(gr.ops.gelu(x.detach().numpy()) - y.detach().numpy()).max() < 4.8e-4


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
    with pytest.raises(ValueError, match=r"\[gelu\] approximate is 'erf': must be 'tanh' or 'none'"):
        gr.ops.gelu(x, approximate="erf")
    with pytest.raises(ValueError, match=r"approximate is 'none', which gelu alone has"):
        call("activation", {"x": x, "activation": "silu", "approximate": "none"}, ("y",))
    frozen = np.zeros((2, 3), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        gr.ops.sigmoid(x, out=frozen)
