"""LayerNorm, RMSNorm and BatchNorm1d as layers: against PyTorch's modules, finite differences and their own formulas."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

import gradring as gr
from gradring.graph import check, train_graph

Array = np.ndarray[Any, Any]


def data(rows: int = 96, features: int = 6, classes: int = 3) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, features)) * 2 + 1
    return x, (x @ rng.standard_normal((features, classes))).argmax(axis=1)


def model(*middle: gr.nn.Layer) -> gr.nn.Sequential:
    return gr.nn.Sequential(gr.nn.Linear(6, 8), *middle, gr.nn.Tanh(), gr.nn.Linear(8, 3))


LAYERS = {
    "LayerNorm": lambda: gr.nn.LayerNorm(8),
    "LayerNorm without bias": lambda: gr.nn.LayerNorm(8, eps=1e-3, bias=False),
    "RMSNorm": lambda: gr.nn.RMSNorm(8),
    "BatchNorm1d": lambda: gr.nn.BatchNorm1d(8, momentum=0.3),
    "BatchNorm1d without weight": lambda: gr.nn.BatchNorm1d(8, affine=False),
}
each = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


def torch_twin(layer: gr.nn.Layer) -> Any:
    torch = pytest.importorskip("torch")
    if isinstance(layer, gr.nn.LayerNorm):
        return torch.nn.LayerNorm(8, eps=layer.eps, bias=layer.bias, dtype=torch.float64)
    if isinstance(layer, gr.nn.RMSNorm):
        return torch.nn.RMSNorm(8, eps=layer.eps, dtype=torch.float64)
    assert isinstance(layer, gr.nn.BatchNorm1d)
    return torch.nn.BatchNorm1d(8, layer.eps, layer.momentum, affine=layer.affine, dtype=torch.float64)


@pytest.mark.parity
@each
def test_trains_and_predicts_as_pytorch_does(make: Any) -> None:
    torch = pytest.importorskip("torch")
    x, y = data()
    ours = model(make())
    trainer = gr.Trainer(ours, optimizer=gr.optim.SGD(0.2, momentum=0.9), dtype="float64", seed=1)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(6, 8, dtype=torch.float64),
        torch_twin(ours[1]),
        torch.nn.Tanh(),
        torch.nn.Linear(8, 3, dtype=torch.float64),
    )
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            if name in ("0.weight", "3.weight"):
                tensor.copy_(torch.from_numpy(ours.params[name].T.copy()))
            else:
                tensor.copy_(torch.from_numpy(ours.params[name].copy()))
    optimizer = torch.optim.SGD(theirs.parameters(), 0.2, momentum=0.9)
    for step in range(12):
        rows = slice(step % 3 * 32, step % 3 * 32 + 32)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
        loss.backward()
        optimizer.step()
        assert trainer.step(x[rows], y[rows]) == pytest.approx(float(loss.detach()), rel=1e-9)
    for name, buffer in trainer.buffers.items():
        assert np.allclose(buffer, theirs.get_buffer(name).numpy(), rtol=1e-9, atol=1e-12)
    theirs.eval()
    with torch.no_grad():
        assert np.allclose(trainer.predict(x), theirs(torch.from_numpy(x)).numpy(), rtol=1e-8, atol=1e-9)
    assert len(trainer.buffers) == (2 if isinstance(ours[1], gr.nn.BatchNorm1d) else 0)


@each
def test_gradients_agree_with_finite_differences(make: Any) -> None:
    x, _ = data(rows=9)
    assert gr.check_grad(model(make()), x) < 1e-6
    assert gr.check_grad(make(), np.random.default_rng(1).standard_normal((5, 8))) < 1e-6


@each
def test_the_graph_of_a_step_is_legal_in_every_form(make: Any) -> None:
    for options in (
        {},
        {"clip_norm": 1.0},
        {"accumulate": True},
        {"accumulate": True, "clip_norm": 1.0},
        {"fuse_update": True, "check_finite": True},
        {"check_finite": True},
    ):
        check(train_graph(model(make()), (16, 6), gr.losses.CrossEntropy(), optimizer=gr.optim.Adam(0.1), **options))


@each
def test_threads_change_no_bit_of_a_training(make: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((640, 96)).astype(np.float32), rng.integers(0, 4, 640)
    found = []
    for threads in (1, 2, 3):
        layers = (gr.nn.Linear(96, 160), gr.nn.Linear(160, 8), make(), gr.nn.Linear(8, 4))
        trainer = gr.Trainer(gr.nn.Sequential(*layers), optimizer=gr.optim.SGD(0.1), threads=threads, seed=3)
        for _ in range(12):
            trainer.step(x, y)
        found.append({name: array.tobytes() for name, array in {**trainer.params, **trainer.buffers}.items()})
    assert found[0] == found[1] == found[2]


def test_shapes_with_more_axes() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 8)).astype(np.float32)
    for layer, op in ((gr.nn.LayerNorm(8), gr.ops.layer_norm), (gr.nn.RMSNorm(8), gr.ops.rms_norm)):
        assert np.array_equal(layer(x), op(x, np.ones(8, np.float32)))


def batch_norm_trainer(**options: Any) -> tuple[gr.Trainer, Array, Array]:
    x, y = data()
    trainer = gr.Trainer(model(gr.nn.BatchNorm1d(8, momentum=0.5)), optimizer=gr.optim.SGD(0.1), seed=2, **options)
    return trainer, x.astype(np.float32), y


def test_buffers_move_once_per_batch_and_stay_in_evaluation() -> None:
    for options in ({}, {"accumulate": 2}, {"clip_norm": 0.1}, {"nonfinite": "ignore"}):
        trainer, x, y = batch_norm_trainer(**options)
        hidden = gr.nn.Sequential(gr.nn.Linear(6, 8)).init()
        mean, var = np.zeros(8), np.ones(8)
        for step in range(4):
            hidden.params.update({name: trainer.params[name] for name in ("0.weight", "0.bias")})
            h = hidden(x[step * 24 : step * 24 + 24]).astype(np.float64)
            mean, var = 0.5 * mean + 0.5 * h.mean(0), 0.5 * var + 0.5 * h.var(0, ddof=1)
            trainer.step(x[step * 24 : step * 24 + 24], y[step * 24 : step * 24 + 24])
            assert np.allclose(trainer.buffers["1.running_mean"], mean, atol=1e-5)
            assert np.allclose(trainer.buffers["1.running_var"], var, rtol=1e-5)
        kept = {name: buffer.copy() for name, buffer in trainer.buffers.items()}
        trainer.evaluate((x, y))
        trainer.predict(x)
        assert all(np.array_equal(trainer.buffers[name], buffer) for name, buffer in kept.items())


@pytest.mark.parametrize("where", ["input", "gradient"])
def test_a_step_that_fails_moves_no_buffer(where: str) -> None:
    trainer, x, y = batch_norm_trainer()
    trainer.step(x, y)
    if where == "gradient":  # a loss that is finite, with a gradient that is not
        trainer.params["1.weight"] = np.full(8, 1e-20)
        trainer.params["3.weight"] = np.full((8, 3), 3e38) * np.sign(np.random.default_rng(0).standard_normal((8, 3)))
        bad = x * np.float32(1e30)
    else:
        bad = x.copy()
        bad[3, 2] = np.nan
    kept = {name: array.copy() for name, array in {**trainer.params, **trainer.buffers}.items()}
    with pytest.raises(gr.NonFinite):
        trainer.step(bad, y)
    now = {**trainer.params, **trainer.buffers}
    assert all(np.array_equal(now[name], array) for name, array in kept.items())


@pytest.mark.cpu("it compares the bits of a model on the CPU")
def test_buffers_are_saved_with_the_model_and_the_trainer(tmp_path: Any) -> None:
    trainer, x, y = batch_norm_trainer()
    trainer.fit((x, y), epochs=2, batch_size=32, verbose=False)
    want = trainer.predict(x)
    trainer.save(tmp_path / "trainer.safetensors")
    trainer.session.model.save(tmp_path / "model.safetensors")
    state = trainer.state_dict()
    other, _, _ = batch_norm_trainer()
    assert not np.array_equal(other.predict(x), want)
    other.load(tmp_path / "trainer.safetensors")
    assert np.array_equal(other.predict(x), want)
    assert np.array_equal(gr.load(tmp_path / "model.safetensors")(x), want)
    third, _, _ = batch_norm_trainer()
    third.load_state_dict(state)
    assert np.array_equal(third.predict(x), want)
    # Both go on alike.
    assert other.step(x, y) == trainer.step(x, y) == third.step(x, y)
    assert all(np.array_equal(other.buffers[name], buffer) for name, buffer in trainer.buffers.items())


@pytest.mark.cpu("it compares the bits of a model on the CPU")
def test_copies_pickles_and_other_dtypes_keep_buffers() -> None:
    trainer, x, y = batch_norm_trainer()
    trainer.step(x, y)
    layer = trainer.session.model
    want = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert np.array_equal(twin(x), want)
        assert twin.buffers["1.running_mean"] is not layer.buffers["1.running_mean"]
    assert np.allclose(copy.deepcopy(layer).astype("float64")(x), want, atol=1e-5)
    # A layer inside sees its own buffers, in the same memory.
    inside = layer[1]
    assert np.shares_memory(inside.buffers["running_mean"], layer.buffers["1.running_mean"])
    assert np.allclose(inside(np.ones((2, 8), np.float32)), inside(np.ones((3, 8), np.float32))[:2])
    layer.buffers["1.running_var"] = np.full(8, 4.0)
    assert (inside.buffers["running_var"] == 4).all()


def test_early_stop_restores_buffers_with_the_parameters() -> None:
    calls = itertools.count()

    def rises(predictions: Array, targets: Array) -> float:  # so the first epoch stays the best
        return float(next(calls))

    trainer, x, y = batch_norm_trainer(metrics=[rises])
    kept: dict[str, Array] = {}

    class Keep(gr.callbacks.Callback):
        def on_epoch_end(self, run: Any) -> None:
            if run.epoch == 0:
                kept.update({name: array.copy() for name, array in run.trainer.buffers.items()})

    stop = gr.callbacks.EarlyStop("val_rises", patience=2, mode="min", restore_best=True)
    trainer.fit((x, y), epochs=5, validate=(x, y), callbacks=[Keep(), stop], verbose=False)
    assert all(np.array_equal(trainer.buffers[name], array) for name, array in kept.items())


def test_misuse_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"\[LayerNorm\] layer 1, LayerNorm\(5\) needs \(batch, \.\.\., 5\), but layer 0"
    ):
        gr.nn.Sequential(gr.nn.Linear(6, 8), gr.nn.LayerNorm(5))(np.ones((2, 6), np.float32))
    with pytest.raises(ValueError, match=r"\[BatchNorm1d\] BatchNorm1d\(8\) needs \(batch, 8\), but the input gives"):
        gr.nn.BatchNorm1d(8)(np.ones((2, 3, 8), np.float32))
    with pytest.raises(ValueError, match=r"training needs at least 2 rows.*drop_last=True"):
        trainer, x, y = batch_norm_trainer()
        trainer.step(x[:1], y[:1])
    with pytest.raises(
        ValueError, match=r"\[BatchNorm1d\] momentum must be a finite number of at least 0 and at most 1"
    ):
        gr.nn.BatchNorm1d(8, momentum=1.5)
    with pytest.raises(ValueError, match="is layer 0 again"):
        layer = gr.nn.BatchNorm1d(8, affine=False)
        gr.nn.Sequential(layer, layer).init()
    assert str(gr.nn.BatchNorm1d(8, eps=0.1, momentum=0.2, affine=False)) == (
        "BatchNorm1d(8, eps=0.1, momentum=0.2, affine=False)"
    )
