from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import ISAS, LAYOUTS, isa, laid_out


@settings(deadline=None, max_examples=100)
@given(
    rows=st.integers(0, 40),
    columns=st.integers(1, 100),
    layout=st.sampled_from(LAYOUTS),
    level=st.sampled_from(ISAS),
    p=st.sampled_from((0.0, 0.1, 0.5, 1.0)),
    seed=st.integers(-(2**70), 2**70),
)
def test_a_samples_mask_depends_on_its_key_alone(
    rows: int, columns: int, layout: str, level: str, p: float, seed: int
) -> None:
    rng = np.random.default_rng(0)
    x = laid_out(rng.random((rows, columns)) + 1, layout)
    samples = rng.integers(0, 2**60, rows)
    y = gr.ops.dropout(x, p, seed=seed, samples=samples, layer=2, epoch=3)
    keep = 1 - round(p * 65536) / 65536
    assert ((y == 0) | (np.abs(y * keep - x) < 1e-12 * x)).all()
    order = rng.permutation(rows)
    with isa(level):
        shuffled = gr.ops.dropout(x[order], p, seed=seed, samples=samples[order], layer=2, epoch=3)
    assert (shuffled == y[order]).all()
    dy = rng.random((rows, columns))
    dx = gr.ops.dropout_vjp(dy, p, seed=seed, samples=samples, layer=2, epoch=3)
    assert ((dx == 0) == (y == 0)).all()


def test_gr_seed_starts_the_sequence_anew() -> None:
    x = np.ones((20, 20), np.float32)
    gr.seed(3)
    first = [gr.ops.dropout(x) for _ in range(3)]
    gr.seed(3)
    again = [gr.ops.dropout(x) for _ in range(3)]
    gr.seed(4)
    other = gr.ops.dropout(x)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != first[1]).any()
    assert (first[0] != other).any()


def test_misuse_is_named() -> None:
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"\[dropout\] p is 1.5\d*: must be between 0 and 1"):
        gr.ops.dropout(x, 1.5)
    with pytest.raises(TypeError, match=r"\[dropout_vjp\] seed is missing"):
        gr.ops.dropout_vjp(x, 0.5)
    with pytest.raises(ValueError, match=r"samples is \(3,\) of int64: must be int64, one number for each of 2 rows"):
        gr.ops.dropout(x, 0.5, samples=np.arange(3))
    with pytest.raises(ValueError, match=r"layer is -1: must be between 0 and 4294967295"):
        gr.ops.dropout(x, 0.5, layer=-1)
    with pytest.raises(TypeError, match=r"seed is a str"):
        gr.ops.dropout(x, 0.5, seed="a")
