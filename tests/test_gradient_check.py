"""check_grad finds right gradients right and wrong ones wrong; and every operation's gradient is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradring as gr
from gradring.gradient_check import GradientMismatch

RNG = np.random.default_rng(5)
X = RNG.standard_normal((7, 11))
LABELS = RNG.integers(0, 11, 7)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "tanh", "sigmoid", "softmax", "log_softmax"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_elementwise_and_softmax(name: str, scale: float) -> None:
    assert gr.check_grad(getattr(gr.ops, name), X * scale) < 1e-6


@pytest.mark.parametrize("axis", [0, -1])
def test_softmax_axes(axis: int) -> None:
    assert gr.check_grad(gr.ops.softmax, X, axis=axis) < 1e-6
    assert gr.check_grad(gr.ops.log_softmax, X, axis=axis) < 1e-6


@pytest.mark.parametrize("reduction", ["sample", "mean"])
def test_losses(reduction: str) -> None:
    assert gr.check_grad(gr.ops.softmax_cross_entropy, X, LABELS, reduction=reduction) < 1e-6
    target = RNG.random((7, 11)).astype(np.float32)
    for loss in (gr.ops.mse, gr.ops.binary_cross_entropy):
        assert gr.check_grad(loss, X, target, reduction=reduction) < 1e-6


def test_dropout() -> None:
    assert gr.check_grad(gr.ops.dropout, X, p=0.4, seed=3) < 1e-6


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_matmul(trans_a: bool, trans_b: bool) -> None:
    a, b = RNG.standard_normal((5, 6)), RNG.standard_normal((6, 4))
    a, b = a.T if trans_a else a, b.T if trans_b else b
    assert gr.check_grad(gr.ops.matmul, a, b, trans_a=trans_a, trans_b=trans_b) < 1e-6


@pytest.mark.parametrize("activation", ["ReLU", "GELU", "SiLU", "Tanh", "Sigmoid"])
def test_layers(activation: str) -> None:
    nn = gr.nn
    forms = [nn.GELU("none")] if activation == "GELU" else []
    model = nn.Sequential(
        nn.Linear(12, 6), getattr(nn, activation)(), *forms, nn.Residual(nn.Linear(6, 6)), nn.Linear(6, 2)
    )
    model.init(seed=1)
    before = {key: value.copy() for key, value in model.params.items()}
    assert gr.check_grad(model, RNG.standard_normal((4, 12))) < 1e-6
    assert all((model.params[key] == value).all() for key, value in before.items())
    assert all(value.dtype == np.float32 for value in model.params.values())


def test_a_wrong_gradient_is_found_and_named() -> None:
    def wrong(dy: Any, x: Any) -> Any:
        gradient = np.cos(x) * dy
        gradient[2, 3] *= 1.01
        return gradient

    assert gr.check_grad(np.sin, X, vjp=lambda dy, x: np.cos(x) * dy) < 1e-6
    with pytest.raises(GradientMismatch, match=r"sin: the gradient by argument 0 at \[2, 3\] is"):
        gr.check_grad(np.sin, X, vjp=wrong)
    with pytest.raises(AssertionError):
        gr.check_grad(np.sin, X, vjp=wrong)
    with pytest.raises(gr.GradringError, match=r"is \(3,\): must be \(7, 11\)"):
        gr.check_grad(np.sin, X, vjp=lambda dy, x: np.zeros(3))
    with pytest.raises(GradientMismatch, match="nan"):
        gr.check_grad(np.sin, X, vjp=lambda dy, x: np.full_like(x, np.nan))


def test_a_wrong_layer_is_found() -> None:
    layer = gr.nn.Function(np.sin, lambda dy, x, y: dy)
    with pytest.raises(GradientMismatch, match="Function: the gradient by the input at"):
        gr.check_grad(layer, X)


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match=r"sin has no vjp that is known: give vjp="):
        gr.check_grad(np.sin, X)
    with pytest.raises(ValueError, match=r"a layer is checked by one array"):
        gr.check_grad(gr.nn.ReLU(), X, X)
    with pytest.raises(ValueError, match=r"must be floats of \(batch, features\)"):
        gr.check_grad(gr.nn.ReLU(), X[0])
