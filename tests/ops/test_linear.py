from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr

Array = np.ndarray[Any, Any]
ACTIVATIONS = (None, "relu", "gelu", "silu", "tanh", "sigmoid")
ROOT = np.sqrt(2 / np.pi)


def activate(kind: str | None, z: Array) -> Array:
    if kind == "relu":
        return np.maximum(z, 0)
    if kind == "gelu":
        return 0.5 * z * (1 + np.tanh(ROOT * (z + 0.044715 * z**3)))
    if kind == "silu":
        return z / (1 + np.exp(-z))
    if kind == "tanh":
        return np.tanh(z)
    if kind == "sigmoid":
        return 1 / (1 + np.exp(-z))
    return z


def slope(kind: str | None, z: Array) -> Array:
    if kind == "relu":
        return (z > 0).astype(z.dtype)
    if kind == "gelu":
        t = np.tanh(ROOT * (z + 0.044715 * z**3))
        return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * ROOT * (1 + 3 * 0.044715 * z * z)
    if kind == "silu":
        s = 1 / (1 + np.exp(-z))
        return s * (1 + z * (1 - s))
    if kind == "tanh":
        return 1 - np.tanh(z) ** 2
    if kind == "sigmoid":
        return activate(kind, z) * (1 - activate(kind, z))
    return np.ones_like(z)


@settings(deadline=None, max_examples=200)
@given(
    rows=st.integers(0, 70),
    inner=st.integers(0, 90),
    outer=st.integers(0, 70),
    dtype=st.sampled_from((np.float32, np.float64)),
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    transposed=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**32 - 1),
)
def test_forward_and_backward_agree_with_float64(
    rows: int,
    inner: int,
    outer: int,
    dtype: Any,
    activation: str | None,
    bias: bool,
    transposed: tuple[bool, bool],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)

    def draw(r: int, c: int, flip: bool = False) -> Array:
        values = rng.standard_normal((c, r) if flip else (r, c)).astype(dtype)
        return values.T if flip else values

    x, w = draw(rows, inner, transposed[0]), draw(inner, outer, transposed[1])
    b = rng.standard_normal(outer).astype(dtype) if bias else None
    wide = [array.astype(np.float64) for array in (x, w)]
    z = wide[0] @ wide[1] + (0 if b is None else b.astype(np.float64))
    unit = 64 * float(np.finfo(dtype).eps) * (rows + inner + outer + 4)

    pre = np.empty((rows, outer), dtype)
    y = gr.ops.linear(x, w, b, activation=activation, pre=pre)
    np.testing.assert_allclose(pre, z, rtol=unit, atol=unit)
    np.testing.assert_allclose(y, activate(activation, z), rtol=unit, atol=unit)

    dy = draw(rows, outer)
    g = dy.astype(np.float64) * slope(activation, pre.astype(np.float64))
    saved = pre if activation in ("gelu", "silu") else y
    dx, dw, db = gr.ops.linear_vjp(dy, x, w, saved, activation=activation)
    np.testing.assert_allclose(dx, g @ wide[1].T, rtol=unit, atol=unit)
    np.testing.assert_allclose(dw, wide[0].T @ g, rtol=unit, atol=unit)
    np.testing.assert_allclose(db, g.sum(axis=0), rtol=unit, atol=unit)


def test_results_of_any_layout() -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((7, 5)), rng.standard_normal((5, 9)), rng.standard_normal(9)
    z = x @ w + b
    for make in (
        lambda r, c: np.empty((r, c)),
        lambda r, c: np.empty((c, r)).T,
        lambda r, c: np.empty((r, c + 3))[:, :c],
        lambda r, c: np.empty((r, 2 * c))[:, ::2],
    ):
        for make_pre in (lambda r, c: np.empty((r, c)), lambda r, c: np.empty((r, 2 * c))[:, ::2]):
            out, pre = make(7, 9), make_pre(7, 9)
            assert gr.ops.linear(x, w, b, activation="tanh", out=out, pre=pre) is out
            np.testing.assert_allclose(out, np.tanh(z), rtol=1e-12)
            np.testing.assert_allclose(pre, z, rtol=1e-12)
        dy = rng.standard_normal((7, 9))
        outs = (make(7, 5), make(5, 9), np.empty(18)[::2])
        results = gr.ops.linear_vjp(dy, x, w, out=outs)
        for result, given_out, expected in zip(results, outs, (dy @ w.T, x.T @ dy, dy.sum(0)), strict=True):
            assert result is given_out
            np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)
    assert gr.ops.linear_vjp(dy, x, w, need_dx=False)[0] is None


def test_more_dimensions() -> None:
    rng = np.random.default_rng(1)
    x, w, b = rng.standard_normal((2, 3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
    out = np.empty((2, 3, 5))
    assert gr.ops.linear(x, w, b, out=out) is out
    np.testing.assert_allclose(out, x @ w + b)
    np.testing.assert_allclose(gr.ops.linear(x[0, 0], w, b), x[0, 0] @ w + b)


def test_bad_input() -> None:
    x, w, b = np.ones((32, 65), np.float32), np.ones((64, 10), np.float32), np.ones(10, np.float32)
    with pytest.raises(ValueError, match=r"\[linear\] w is \(64, 10\), x is \(32, 65\): x.shape\[1\] must be 64"):
        gr.ops.linear(x, w, b)
    x = x[:, :64]
    with pytest.raises(ValueError, match=r"b must be \(10,\)"):
        gr.ops.linear(x, w, np.ones(11, np.float32))
    with pytest.raises(TypeError, match=r"w is float32, b is float64"):
        gr.ops.linear(x, w, np.ones(10))
    with pytest.raises(ValueError, match=r"activation is 'swish': must be None, 'relu'"):
        gr.ops.linear(x, w, b, activation="swish")
    with pytest.raises(TypeError, match=r"activation is a int"):
        gr.ops.linear(x, w, b, activation=3)
    dy = np.ones((32, 10), np.float32)
    with pytest.raises(ValueError, match=r"y_or_pre is missing"):
        gr.ops.linear_vjp(dy, x, w, activation="relu")
    with pytest.raises(ValueError, match=r"dy must be \(32, 10\)"):
        gr.ops.linear_vjp(dy[:, :9], x, w)
    with pytest.raises(TypeError, match=r"out must be a tuple"):
        gr.ops.linear_vjp(dy, x, w, out=dy)
    with pytest.raises(ValueError, match=r"dw shares memory with w"):
        gr.ops.linear_vjp(dy, x, w, out=(None, w, None))
    with pytest.raises(ValueError, match=r"pre shares memory with out"):
        both = np.empty((32, 10), np.float32)
        gr.ops.linear(x, w, b, out=both, pre=both)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_same_bits_for_any_number_of_threads(activation: str | None) -> None:
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((203, 310)).astype(np.float32), rng.standard_normal((310, 117)).astype(np.float32)
    dy = rng.standard_normal((203, 117)).astype(np.float32)
    before = gr.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 8):
            gr.set_num_threads(threads)
            y = gr.ops.linear(x, w, activation=activation)
            results.append((y, *gr.ops.linear_vjp(dy, x, w, y, activation=activation)))
        for other in results[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))
    finally:
        gr.set_num_threads(before)
