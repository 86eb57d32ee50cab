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


@settings(deadline=None, max_examples=100)
@given(
    shape=shapes,
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(st.sampled_from(WRITEABLE), st.sampled_from(LAYOUTS), st.sampled_from(WRITEABLE)),
    level=st.sampled_from(ISAS),
    centered=st.booleans(),
    momentum=st.sampled_from((0.0, 0.9)),
    decay=st.sampled_from((0.0, 0.01)),
    seed=st.integers(0, 2**32 - 1),
)
def test_rmsprop(
    shape: tuple[int, ...],
    dtype: Any,
    layouts: tuple[str, str, str],
    level: str,
    centered: bool,
    momentum: float,
    decay: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    param = laid_out(rng.standard_normal(shape).astype(dtype), layouts[0])
    grad = laid_out(rng.standard_normal(shape).astype(dtype), layouts[1])
    v = laid_out((rng.random(shape) + 0.5).astype(dtype), layouts[2])
    mean, velocity = (laid_out((0.1 * rng.standard_normal(shape)).astype(dtype), layouts[2]) for _ in range(2))
    g = 0.5 * grad.astype(np.float64) + decay * param
    want_v, want_mean = 0.9 * v + 0.1 * g * g, 0.9 * mean + 0.1 * g if centered else mean.astype(np.float64)
    step = g / (np.sqrt(want_v - want_mean**2 if centered else want_v) + 1e-3)
    want_velocity = momentum * velocity + step if momentum else velocity.astype(np.float64)
    want = param - 0.1 * (want_velocity if momentum else step)
    options = {"momentum": momentum, "centered": centered, "weight_decay": decay}
    with isa(level):
        gr.ops.rmsprop_update(param, grad, v, mean, velocity, lr=0.1, alpha=0.9, eps=1e-3, grad_scale=0.5, **options)
    eps = float(np.finfo(dtype).eps)
    for got, right in ((v, want_v), (mean, want_mean), (velocity, want_velocity), (param, want)):
        assert (np.abs(got - right) <= 64 * eps * (1 + np.abs(right))).all()


@settings(deadline=None, max_examples=100)
@given(
    shape=shapes,
    dtype=st.sampled_from(FLOATS),
    layouts=st.tuples(st.sampled_from(WRITEABLE), st.sampled_from(LAYOUTS), st.sampled_from(WRITEABLE)),
    level=st.sampled_from(ISAS),
    decay=st.sampled_from((0.0, 0.01)),
    seed=st.integers(0, 2**32 - 1),
)
def test_lion(
    shape: tuple[int, ...], dtype: Any, layouts: tuple[str, str, str], level: str, decay: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Whole numbers and factors that binary fractions hold: no sign depends on rounding, and 0 comes often.
    param = laid_out(rng.standard_normal(shape).astype(dtype), layouts[0])
    grad = laid_out(rng.integers(-3, 4, shape).astype(dtype), layouts[1])
    m = laid_out(rng.integers(-3, 4, shape).astype(dtype), layouts[2])
    want = (1 - 0.1 * decay) * param - 0.1 * np.sign(0.5 * m + 0.25 * grad)
    want_m = 0.75 * m + 0.25 * 0.5 * grad
    with isa(level):
        gr.ops.lion_update(param, grad, m, lr=0.1, betas=(0.5, 0.75), weight_decay=decay, grad_scale=0.5)
    eps = float(np.finfo(dtype).eps)
    assert (np.abs(m - want_m) <= 8 * eps * (1 + np.abs(want_m))).all()
    assert (np.abs(param - want) <= 8 * eps * (1 + np.abs(want))).all()


@pytest.mark.parametrize("large", [3e19, 1.8e20, 5.8e20])
def test_a_large_gradient_does_not_stop_an_element_for_ever(large: float) -> None:
    """As in PyTorch: the square of a gradient overflows float32 above 1.8e19, its share in the mean does not."""
    grad = np.array([large, 1.0], np.float32)
    for update, rest, largest in ((gr.ops.adam_update, 1e-3, 5.8e20), (gr.ops.rmsprop_update, 1e-2, 1.8e20)):
        if large > largest:
            continue
        adam = update is gr.ops.adam_update
        param, states = np.ones(2, np.float32), [np.zeros(2, np.float32) for _ in range(1 + adam)]
        update(param, grad, *states, **({"step": 1} if adam else {}), lr=0.1)
        np.testing.assert_allclose(states[-1][0], rest * large * large, rtol=1e-5)
        assert np.isfinite(param).all() and (param < 1).all()


def test_a_step_in_which_nothing_has_varied_is_finite_when_centered() -> None:
    """v - mean**2 is 0, or below it by rounding, where every gradient was the same."""
    param, v, mean = (np.full(64, fill, np.float32) for fill in (1.0, 0.0, 0.0))
    grad = np.linspace(0.1, 3.0, 64, dtype=np.float32)
    for _ in range(3000):
        gr.ops.rmsprop_update(param, grad, v, mean, lr=1e-9, alpha=0.9, centered=True)
    assert np.isfinite(param).all()


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
    with pytest.raises(ValueError, match=r"\[rmsprop_update\] mean is missing: centered needs"):
        gr.ops.rmsprop_update(param, grad, v, centered=True)
    with pytest.raises(ValueError, match=r"\[rmsprop_update\] velocity is missing: momentum needs"):
        gr.ops.rmsprop_update(param, grad, v, momentum=0.5)
    with pytest.raises(ValueError, match=r"alpha is 1\.0: must be at least 0 and less than 1"):
        gr.ops.rmsprop_update(param, grad, v, alpha=1.0)
    with pytest.raises(ValueError, match=r"beta1 is 1\.0: must be at least 0 and less than 1"):
        gr.ops.lion_update(param, grad, m, betas=(1.0, 0.5))
    with pytest.raises(ValueError, match=r"vmax is \(3,\)"):
        gr.ops.adam_update(param, grad, m, v, np.zeros(3, np.float32), step=1)
    with pytest.raises(TypeError, match=r"param is a list"):
        gr.ops.sgd_update([1.0], grad, lr=0.1)
    frozen = np.ones(4, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"param is read-only"):
        gr.ops.sgd_update(frozen, grad, lr=0.1)
    assert (param == 1).all()
    assert (m == 0).all()
