"""A step whose loss is finite and whose gradients are not changes nothing, on whichever route it finds out."""

from __future__ import annotations

import numpy as np
import pytest

import gradring as gr
from gradring import nn, optim
from helpers import snapshot

LARGE = {"float32": 3e38, "float64": 1.7e308}
OPTIMIZERS = {
    "sgd": optim.SGD(0.1),
    "momentum": optim.SGD(0.1, momentum=0.9),
    "adam": optim.Adam(0.1),
    "adamw": optim.AdamW(0.1),
}


def zeros(model: nn.Layer, dtype: str) -> nn.Layer:
    model.init(0, dtype)
    for array in model.params.values():
        array[...] = 0
    return model


@pytest.mark.parametrize("dtype", LARGE)
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulate": 2}, {"accumulate": 2, "clip_norm": 1.0}])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_changes(dtype, options, optimizer, threads):
    model = zeros(nn.Linear(3, 2), dtype)
    trainer = gr.Trainer(model, loss="mse", optimizer=OPTIMIZERS[optimizer], dtype=dtype, threads=threads, **options)
    x, y = np.ones((4, 3), dtype), np.full((4, 2), 0.5, dtype)
    for _ in range(2):
        trainer.step(x, y)
    before = snapshot(trainer)
    x[2, 1], y[2, 0] = LARGE[dtype], 1e3
    for name, array in trainer.params.items():
        array[...] = 0 if name == "weight" else array
    before = snapshot(trainer)
    with pytest.raises(gr.errors.NonFinite, match="a gradient of step"):
        for _ in range(options.get("accumulate", 1)):
            assert np.isfinite(trainer.step(x, y))
    assert snapshot(trainer) == before
    x[2, 1] = 1
    for _ in range(options.get("accumulate", 1)):
        trainer.step(x, y)
    assert all(np.isfinite(array).all() for array in trainer.params.values())
    assert trainer.step_count == before["step"] + 1


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_gradient_of_any_layer_is_found_before_the_first_update(where):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    trainer = gr.Trainer(model, loss="mse", optimizer=optim.SGD(0.1, momentum=0.9), seed=1)
    x, y = np.full((6, 4), 0.1, np.float32), np.ones((6, 3), np.float32)
    trainer.step(x, y)
    if where == "first":  # x dy overflows, though both are finite and the loss is
        trainer.params["0.weight"][0] = 0
        x[0, 0] = 3e38
        y[...] = 1e6
    else:
        trainer.params["2.weight"][...] = 0
        trainer.params["0.bias"][...] = 2e38
        y[...] = 1e6
    before = snapshot(trainer)
    with pytest.raises(gr.errors.NonFinite, match="a gradient of step 2"):
        trainer.step(x, y)
    assert snapshot(trainer) == before


@pytest.mark.parametrize("dtype", LARGE)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_that_only_seem_too_large_give_the_bits_of_the_separate_update(dtype, optimizer):
    """The bound overflows, the gradients do not: the step takes its other route."""
    results = []
    for fuse_update in (None, False):
        model = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5))
        session = gr.session.Session(
            model, loss="mse", optimizer=OPTIMIZERS[optimizer], dtype=dtype, fuse_update=fuse_update, seed=2
        )
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((11, 7)).astype(dtype), rng.standard_normal((11, 5)).astype(dtype)
        losses = []
        for step in range(6):
            x[3, 2] = LARGE[dtype] if step % 2 else 1  # tanh saturates: the derivative that meets it is zero
            losses.append(session.step(x, y))
        results.append((losses, {k: v.copy() for k, v in {**session.params, **session.state}.items()}))
    assert results[0][0] == results[1][0]
    for name, array in results[0][1].items():
        assert np.isfinite(array).all(), name
        np.testing.assert_array_equal(array, results[1][1][name])


def test_an_incomplete_group_of_batches_is_looked_at_too():
    x, y = np.ones((6, 1), np.float32), np.ones((6, 1), np.float32)
    x[4], y[4] = 3e38, 1e3
    trainer = gr.Trainer(zeros(nn.Linear(1, 1), "float32"), loss="mse", optimizer=optim.SGD(0.0), accumulate=2)
    trainer.params["weight"][...] = 0
    with pytest.raises(gr.errors.NonFinite, match="a gradient of step"):
        trainer.fit(gr.Loader((x, y), 2, num_threads=1), epochs=1)
    assert np.isfinite(trainer.params["weight"]).all()
    assert trainer.session.pending == 0


def test_ignoring_asks_for_no_proof():
    trainer = gr.Trainer(nn.Linear(3, 2), loss="mse", nonfinite="ignore", optimizer=optim.SGD(0.1))
    trainer.step(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32))
    assert not {"largest", "bound_gradient", "check_gradients"} & {node.op for node in trainer.plan().graph.nodes}
