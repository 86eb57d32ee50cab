"""The memory of parameters: a model and its layers share it; copies, moves, and what is refused while a fit runs."""

import copy
import pickle

import numpy as np
import pytest

import gradring as gr
from gradring import nn
from helpers import mlp

X = np.random.default_rng(0).standard_normal((6, 8)).astype("f4")
Y = np.array([0, 1, 2, 2, 1, 0])


def values(params):
    return {name: np.asarray(array).tobytes() for name, array in params.items()}


def test_the_layers_inside_have_the_models_parameters():
    model = nn.Sequential(nn.Linear(8, 4), nn.Residual(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3)).init(seed=3)
    assert np.shares_memory(model[0].params["weight"], model.params["0.weight"])
    assert np.shares_memory(model[1].layer[0].params["bias"], model.params["1.layer.0.bias"])
    gr.Trainer(model).fit((X, Y))
    for name, array in model[1].params.items():
        np.testing.assert_array_equal(array, model.params[f"1.{name}"])
    np.testing.assert_array_equal(model[2](model[1](model[0](X))), model(X))
    model.astype("float64")
    assert model[0].params["weight"] is not None and model[0](X).dtype == np.float64


def test_layers_keep_what_they_have_in_a_new_model():
    encoder = mlp(8, 4).init(seed=9)
    kept = {name: array.copy() for name, array in encoder.params.items()}
    model = nn.Sequential(encoder, nn.ReLU(), nn.Linear(4, 3))
    for name, array in kept.items():
        np.testing.assert_array_equal(model.params[f"0.{name}"], array)
    model.init(seed=9)
    assert not np.array_equal(model.params["0.0.weight"], kept["0.weight"])


def test_a_layer_of_a_model_is_not_trained_alone():
    model = mlp(8, 4, 3).init()
    with pytest.raises(ValueError, match=r"layer of another model .* copy.deepcopy"):
        gr.Trainer(model[0])
    gr.Trainer(copy.deepcopy(model[0]), loss="mse").step(X, np.zeros((6, 4), "f4"))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_has_the_same_values_in_memory_of_its_own(way, dtype):
    sine = nn.Function(np.sin, np.subtract)  # functions that a pickle can name; the vjp is not called
    model = nn.Sequential(nn.Linear(8, 4), nn.Residual(nn.Linear(4, 4)), sine, nn.Linear(4, 3)).init(1, dtype)
    before = model(X)
    other = way(model)
    assert other.store.dtype == dtype and list(other.params) == list(model.params)
    np.testing.assert_array_equal(other(X), before)
    other.params["0.weight"][...] = 0
    np.testing.assert_array_equal(other[0].params["weight"], 0)
    np.testing.assert_array_equal(model(X), before)
    assert way(mlp(2, 3))._store is None
    assert copy.copy(model).params is model.params


@pytest.mark.parametrize("change", [lambda m: m.init(1), lambda m: m.astype("float64"), lambda m: m[0].init(2)])
def test_nobody_fills_or_moves_parameters_under_a_fit(change):
    class Change(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            change(run.trainer.model)

    trainer = gr.Trainer(mlp(8, 4, 3))
    with pytest.raises(gr.GradringError, match=r"\[(Sequential|Linear)\.(init|astype)\] Trainer.fit is training this"):
        trainer.fit((X, Y), epochs=2, callbacks=[Change()])
    change(trainer.model)  # it is allowed after the fit


def test_a_trainer_notices_that_its_model_has_moved():
    model = mlp(8, 4, 3)
    trainer = gr.Trainer(model)
    trainer.fit((X, Y))
    kept, before = trainer.params, values(trainer.params)
    gr.Trainer(model, dtype="float64").fit((X, Y))
    for use in (
        lambda: trainer.fit((X, Y)),
        lambda: trainer.evaluate((X, Y)),
        lambda: trainer.predict(X),
        lambda: trainer.step(X[:3], Y[:3]),
    ):
        with pytest.raises(gr.GradringError, match="moved to other memory .* make a new trainer"):
            use()
    assert values(kept) == before
    model.astype("float32")
    gr.Trainer(model).fit((X, Y))


@pytest.mark.parametrize("move", [lambda m: m.astype("float64"), lambda m: m.init(dtype="float64"), nn.Sequential])
def test_a_step_notices_it_too(move):
    """Also after many, when steps take the short way in."""
    model = mlp(8, 4, 3)
    trainer = gr.Trainer(model)
    for _ in range(3):
        trainer.step(X[:4], Y[:4])
    kept = trainer.params
    before, other = values(kept), move(model)
    other.ensure()
    with pytest.raises(gr.GradringError, match="moved to other memory .* make a new trainer"):
        trainer.step(X[:4], Y[:4])
    assert values(kept) == before


@pytest.mark.cpu("NumPy looks at addresses")
def test_a_layer_of_two_models_has_one_set_of_values():
    shared = nn.Linear(8, 4)
    first = nn.Sequential(shared, nn.ReLU(), nn.Linear(4, 3)).init(1)
    second = nn.Sequential(shared, nn.Tanh(), nn.Linear(4, 3))
    mine = first[2].params["weight"].copy()
    old = gr.Trainer(first)
    old.step(X[:4], Y[:4])
    values = shared.params["weight"].copy()
    new = gr.Trainer(second)
    assert np.array_equal(shared.params["weight"], values)
    with pytest.raises(gr.GradringError, match="as layers of another model: make a new trainer"):
        old.step(X[:4], Y[:4])
    new.step(X[:4], Y[:4])  # the refused step has taken nothing away from it
    trained = shared.params["weight"].copy()
    assert not np.array_equal(trained, values)
    # Used again, the first model has what the second has learned, and its own last layer as it was.
    expected = np.maximum(X @ trained + shared.params["bias"], 0) @ first[2].params["weight"] + first[2].params["bias"]
    np.testing.assert_allclose(first(X), expected, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(first[2].params["weight"], mine) and np.shares_memory(
        first.params["0.weight"], shared.params["weight"]
    )
    with pytest.raises(gr.GradringError, match="as layers of another model: make a new trainer"):
        new.step(X[:4], Y[:4])
    gr.Trainer(second).step(X[:4], Y[:4])


def test_a_layer_cannot_leave_a_model_that_trains():
    shared = nn.Linear(8, 4)

    class Take(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            nn.Sequential(shared, nn.Linear(4, 3)).init()

    trainer = gr.Trainer(nn.Sequential(shared, nn.ReLU(), nn.Linear(4, 3)))
    with pytest.raises(gr.GradringError, match="Trainer.fit is training this model"):
        trainer.fit((X, Y), epochs=2, callbacks=[Take()])
    trainer.fit((X, Y))


@pytest.mark.parametrize("sizes", [(2**40, 10), (10, 2**40), (2**31, 2**31), (2**62, 4), (2**70, 1)])
def test_parameters_that_no_machine_can_hold(sizes):
    with pytest.raises(MemoryError, match=r"\[init\] \d+ parameters of float32 take .* GiB, the largest .*'weight'"):
        nn.Linear(*sizes).init()
    with pytest.raises(MemoryError, match=r"'1\.weight' \(\d+, \d+\)"):
        gr.Trainer(nn.Sequential(nn.Linear(2, 2), nn.Linear(*sizes)))


@pytest.mark.parametrize(
    ("dtype", "error"), [("int8", ValueError), ("float16", ValueError), (None, TypeError), (3, TypeError)]
)
def test_dtypes_that_parameters_cannot_have(dtype, error):
    for use in (lambda: mlp(2, 3).init(dtype=dtype), lambda: mlp(2, 3).astype(dtype)):
        with pytest.raises(error, match=r"dtype must be 'float32' or 'float64', got"):
            use()
    assert mlp(2, 3).init(dtype=np.float64).store.dtype == "float64"
