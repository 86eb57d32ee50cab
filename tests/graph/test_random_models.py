"""Models of layers drawn at random: every gradient against finite differences, and training that runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradring as gr
from gradring import nn, optim


def sine() -> nn.Function:
    """Bounded: a stack of many, drawn at random, must neither overflow nor drown its gradients' differences in rounding."""
    return nn.Function(np.sin, lambda dy, x, y: np.cos(x) * dy)


def draw(rng: np.random.Generator, shape: tuple[int, ...], depth: int = 0) -> tuple[nn.Layer, tuple[int, ...]]:
    """A model for rows of ``shape``, and the shape of its outputs' rows."""
    layers: list[nn.Layer] = []
    for kind in rng.choice(["flatten", "function", "tanh", "gelu", "dropout", "linear", "residual", "nested"], 4):
        if kind == "flatten":
            layers.append(nn.Flatten())
            shape = (math.prod(shape),)
        elif kind == "linear":
            layers.append(nn.Linear(shape[-1], int(rng.integers(1, 6))))
            shape = (*shape[:-1], layers[-1].outputs)
        elif kind == "residual" and depth < 2:
            inner, made = draw(rng, shape, depth + 1)
            layers += [nn.Residual(inner)] if made == shape else []
        elif kind == "nested" and depth < 2:
            inner, shape = draw(rng, shape, depth + 1)
            layers.append(inner)
        else:
            layers.append({"function": sine, "tanh": nn.Tanh, "gelu": nn.GELU}.get(kind, lambda: nn.Dropout(0.3))())
    return nn.Sequential(*layers), shape


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
@pytest.mark.parametrize("seed", np.random.default_rng().integers(0, 2**32, 20))
def test_gradients_and_training(seed: int, loss: str) -> None:
    rng = np.random.default_rng(seed)
    model, made = draw(rng, (2, 3))
    gr.check_grad(model, rng.standard_normal((5, 2, 3)), tolerance=1e-5)
    x, y = rng.standard_normal((11, 2, 3)).astype("f4"), rng.random((11, *made)).astype("f4")
    options = {"accumulate": int(rng.integers(1, 3)), "clip_norm": rng.choice([None, 1.0])}
    trainer = gr.Trainer(model, loss, optim.SGD(0.01, momentum=0.9), threads=int(rng.integers(1, 3)), **options)
    history = trainer.fit((x, y), epochs=2, batch_size=4, validate=(x, y))
    assert math.isfinite(history.last["loss"]) and math.isfinite(history.last["val_loss"])
    np.testing.assert_allclose(trainer.predict(x, batch_size=4), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["f4", "u1", "f8"])
def test_a_model_without_an_operation_hands_its_input_on(dtype: str) -> None:
    x = np.arange(24).reshape(4, 2, 3).astype(dtype)
    for model, want in ((nn.Flatten(), x.reshape(4, 6)), (nn.Sequential(nn.Dropout(0.5)), x), (nn.Sequential(), x)):
        for _ in range(2):
            got = model(x)
            np.testing.assert_array_equal(got, want)
            assert got.dtype == np.float32 and not np.shares_memory(got, x)


def test_the_gradient_check_has_targets_of_its_own() -> None:
    """An input that is its own target would have no gradient at all, and any gradient function would be right."""
    x = np.random.default_rng(0).standard_normal((3, 2, 2))
    with pytest.raises(gr.GradringError, match="gradient by the input"):
        gr.check_grad(nn.Function(lambda x: x, lambda dy, x, y: np.zeros_like(dy)), x)
