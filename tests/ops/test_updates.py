from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import FLOATS, ISAS, LAYOUTS, isa, laid_out, shapes

WRITEABLE = tuple(layout for layout in LAYOUTS if layout not in ("repeated", "read-only"))


@settings(deadline=None, max_examples=200)
@given(
    shape=shapes,
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(st.sampled_from(WRITEABLE), st.sampled_from(LAYOUTS), st.sampled_from(WRITEABLE)),
    level=st.sampled_from(ISAS),
    momentum=st.sampled_from((0.0, 0.9)),
    nesterov=st.booleans(),
    decay=st.sampled_from((0.0, 0.01)),
    seed=st.integers(0, 2**32 - 1),
)
def test_sgd(
    shape: tuple[int, ...],
    dtype: Any,
    layouts: tuple[str, str, str],
    level: str,
    momentum: float,
    nesterov: bool,
    decay: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    param = laid_out(rng.standard_normal(shape).astype(dtype), layouts[0])
    grad = laid_out(rng.standard_normal(shape).astype(dtype), layouts[1])
    velocity = laid_out(rng.standard_normal(shape).astype(dtype), layouts[2])
    g = 0.5 * grad.astype(np.float64) + decay * param
    v = momentum * velocity + g if momentum else velocity.astype(np.float64)
    nesterov = nesterov and momentum > 0
    want = param - 0.1 * (g + momentum * v if nesterov else v if momentum else g)
    with isa(level):
        gr.ops.sgd_update(
            param, grad, velocity, lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay, grad_scale=0.5
        )
    eps = float(np.finfo(dtype).eps)
    assert (np.abs(param - want) <= 8 * eps * (1 + np.abs(want))).all()
    assert (np.abs(velocity - v) <= 8 * eps * (1 + np.abs(v))).all()


@settings(deadline=None, max_examples=200)
@given(
    shape=shapes,
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(st.sampled_from(WRITEABLE), st.sampled_from(LAYOUTS), st.sampled_from(WRITEABLE)),
    level=st.sampled_from(ISAS),
    decoupled=st.booleans(),
    decay=st.sampled_from((0.0, 0.01)),
    step=st.sampled_from((1, 2, 1000)),
    seed=st.integers(0, 2**32 - 1),
)
def test_adam(
    shape: tuple[int, ...],
    dtype: Any,
    layouts: tuple[str, str, str],
    level: str,
    decoupled: bool,
    decay: float,
    step: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    param = laid_out(rng.standard_normal(shape).astype(dtype), layouts[0])
    grad = laid_out(rng.standard_normal(shape).astype(dtype), layouts[1])
    m = laid_out(rng.standard_normal(shape).astype(dtype), layouts[2])
    v = laid_out(rng.random(shape).astype(dtype), layouts[2])
    g, p = 0.5 * grad.astype(np.float64), param.astype(np.float64)
    if decoupled:
        p = p * (1 - 0.1 * decay)
    else:
        g = g + decay * p
    want_m, want_v = 0.8 * m + 0.2 * g, 0.99 * v + 0.01 * g * g
    want = p - 0.1 * (want_m / (1 - 0.8**step)) / (np.sqrt(want_v / (1 - 0.99**step)) + 1e-6)
    update = gr.ops.adamw_update if decoupled else gr.ops.adam_update
    with isa(level):
        update(param, grad, m, v, step=step, lr=0.1, betas=(0.8, 0.99), eps=1e-6, weight_decay=decay, grad_scale=0.5)
    eps = float(np.finfo(dtype).eps)
    assert (np.abs(m - want_m) <= 8 * eps * (1 + np.abs(want_m))).all()
    assert (np.abs(v - want_v) <= 8 * eps * (1 + want_v)).all()
    assert (np.abs(param - want) <= 64 * eps * (1 + np.abs(want) + np.abs(want - p))).all()


def test_misuse_is_named_and_changes_nothing() -> None:
    param, grad = np.ones(4, np.float32), np.ones(4, np.float32)
    m, v = np.zeros(4, np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=r"velocity is missing: momentum needs"):
        gr.ops.sgd_update(param, grad, lr=0.1, momentum=0.9)
    with pytest.raises(TypeError, match=r"\[sgd_update\] lr is missing"):
        gr.ops.sgd_update(param, grad)
    with pytest.raises(ValueError, match=r"lr is -1\.0+: must be at least 0"):
        gr.ops.sgd_update(param, grad, lr=-1)
    with pytest.raises(ValueError, match=r"nesterov needs momentum"):
        gr.ops.sgd_update(param, grad, lr=0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"param is \(4,\), grad is \(3,\): must be the same"):
        gr.ops.sgd_update(param, grad[:3], lr=0.1)
    with pytest.raises(ValueError, match=r"param shares memory with grad"):
        gr.ops.sgd_update(param, param, lr=0.1)
    with pytest.raises(TypeError, match=r"step is missing"):
        gr.ops.adam_update(param, grad, m, v)
    with pytest.raises(ValueError, match=r"step is 0: must be at least 1"):
        gr.ops.adam_update(param, grad, m, v, step=0)
    with pytest.raises(ValueError, match=r"v shares memory with m"):
        gr.ops.adam_update(param, grad, m, m, step=1)
    with pytest.raises(ValueError, match=r"beta2 is 1\.0: must be at least 0 and less than 1"):
        gr.ops.adam_update(param, grad, m, v, step=1, betas=(0.9, 1.0))
    with pytest.raises(TypeError, match=r"param is a list"):
        gr.ops.sgd_update([1.0], grad, lr=0.1)
    frozen = np.ones(4, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"param is read-only"):
        gr.ops.sgd_update(frozen, grad, lr=0.1)
    assert (param == 1).all()
    assert (m == 0).all()
