"""Kind 3: nothing is ignored in silence."""

import copy
import pickle

import numpy as np
import pytest

import gradring as gr
from cases.silence import RNG, X, Y, model, trainer


def own_step():
    params = {"w": np.ones(3), "b": np.float32(2) * np.ones((), np.float32)}

    def step(params, batch):
        return 1.0, {"w": np.ones(3), "b": np.ones((), np.float32)}

    return gr.Trainer(step=step, params=params, optimizer=gr.optim.SGD(0.5))


# Parameters


@pytest.mark.parametrize("holder", [lambda: model().init(0), trainer, lambda: trainer().session])
def test_an_assigned_parameter_is_written_into_the_view(holder, tmp_path):
    made = holder()
    view, values = made.params["0.weight"], RNG.standard_normal((4, 5))
    made.params["0.weight"] = values
    assert made.params["0.weight"] is view
    np.testing.assert_array_equal(view, values.astype(np.float32))
    made.params.update({"0.bias": [1, 2, 3, 4, 5], "2.bias": np.zeros(3)})
    made.params |= {"0.bias": np.full(5, 7.0)} if not isinstance(made, gr.Trainer) else {}
    made.params["0.weight"] += 1
    np.testing.assert_allclose(view, values + 1, rtol=1e-5)
    for name, wrong in (("0.weight", np.zeros((5, 4))), ("0.bias", 1.0), ("0.bias", np.zeros((5, 1)))):
        with pytest.raises(ValueError, match=rf"{name}.*must be the same"):
            made.params[name] = wrong
    with pytest.raises(TypeError, match="complex"):
        made.params["0.bias"] = np.zeros(5, complex)
    with pytest.raises(KeyError, match=r"0\.wieght.*did you mean '0\.weight'"):
        made.params["0.wieght"] = values
    for change in (lambda p: p.pop("0.bias"), lambda p: p.clear(), lambda p: p.__delitem__("0.bias")):
        with pytest.raises(TypeError, match="cannot be removed"):
            change(made.params)


def test_an_update_that_does_not_fit_writes_nothing():
    made = model().init(0)
    before = {name: array.copy() for name, array in made.params.items()}
    with pytest.raises(ValueError, match=r"2\.bias"):
        made.params.update({"0.bias": np.full(5, 9.0), "2.bias": np.zeros(4)})
    for name, array in before.items():
        np.testing.assert_array_equal(made.params[name], array)


def test_what_is_assigned_is_what_is_used_and_saved(tmp_path):
    made = trainer()
    made.params["2.bias"] = [5.0, 0.0, 0.0]
    assert (made.predict(X).argmax(1) == 0).all()
    made.save(tmp_path / "m.safetensors")
    other = trainer()
    other.load(tmp_path / "m.safetensors")
    assert other.params["2.bias"][0] == 5.0
    assert type(copy.deepcopy(made.params)) is dict and type(pickle.loads(pickle.dumps(made.params))) is dict


def test_parameters_of_ones_own_step():
    made = own_step()
    made.params["w"] = [3, 4, 5]
    made.params["b"] = 1.5
    made.step(np.zeros(2))
    np.testing.assert_allclose(made.params["w"], [2.5, 3.5, 4.5])
    assert made.params["b"] == 1.0


def test_a_step_that_replaces_a_parameter_is_told():
    def step(params, batch):
        params["w"] = params["w"] - 0.1
        return 1.0, {"w": np.ones(3)}

    made = gr.Trainer(step=step, params={"w": np.ones(3)}, optimizer=gr.optim.SGD(0.5))
    for _ in range(2):
        with pytest.raises(TypeError, match=r"in the place of params\['w'\]"):
            made.step(np.zeros(2))
    np.testing.assert_array_equal(made.params["w"], np.ones(3))


# The optimizer


def test_another_optimizer_counts_from_the_next_step():
    made = trainer(gr.optim.SGD(0.5))
    made.step(X, Y)
    before = {name: array.copy() for name, array in made.params.items()}
    made.optimizer = gr.optim.SGD(1e-9)
    step = made.step
    for _ in range(3):
        step(X, Y)
    for name, array in before.items():
        np.testing.assert_allclose(made.params[name], array, atol=1e-7)
    assert made.fit((X, Y), 1, verbose=False).last["lr"] == 1e-9


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (gr.optim.SGD(0.1), gr.optim.SGD(0.1, momentum=0.9, nesterov=True)),
        (gr.optim.SGD(0.1), gr.optim.Adam(1e-2)),
        (gr.optim.Adam(1e-2), gr.optim.SGD(0.1)),
        (gr.optim.AdamW(1e-2), gr.optim.SGD(gr.optim.schedule.linear(0.3, 0.1, 50), momentum=0.5)),
        (gr.optim.SGD(0.1, momentum=0.9), gr.optim.AdamW(1e-2, weight_decay=0.5)),
    ],
)
def test_its_state_begins_fresh(first, second):
    """A new optimizer trains as in a new trainer with the same weights: its schedule and Adam's t begin when it is assigned."""
    made = trainer(first)
    for _ in range(20):
        made.step(X, Y)
    made.optimizer = second
    fresh = gr.Trainer(copy.deepcopy(made.model), optimizer=second)
    if callable(second.lr):
        fresh.session.step_count = made.step_count
    for _ in range(3):
        assert made.step(X, Y) == fresh.step(X, Y)
    for name, array in fresh.params.items():
        np.testing.assert_array_equal(made.params[name], array)


def test_its_state_goes_on_where_both_keep_it():
    """Adam and AdamW without decay are one rule, so changing from one to the other changes no bit."""
    one, other = trainer(gr.optim.Adam(1e-2)), trainer(gr.optim.Adam(1e-2))
    for number in range(10):
        if number == 5:
            other.optimizer = gr.optim.AdamW(1e-2, weight_decay=0.0)
        assert one.step(X, Y) == other.step(X, Y)


def test_it_is_saved_with_its_own_count(tmp_path):
    made = trainer(gr.optim.SGD(0.1))
    for _ in range(9):
        made.step(X, Y)
    made.optimizer = gr.optim.Adam(1e-2)
    made.step(X, Y)
    made.save(tmp_path / "m")
    again = trainer(gr.optim.Adam(1e-2))
    again.load(tmp_path / "m")
    assert [made.step(X, Y) for _ in range(3)] == [again.step(X, Y) for _ in range(3)]


def test_a_callback_may_change_it():
    class Fall(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.trainer.optimizer = gr.optim.SGD(run.trainer.optimizer.lr / 10)

    history = trainer(gr.optim.SGD(0.1)).fit((X, Y), 3, callbacks=[Fall()], verbose=False)
    np.testing.assert_allclose(history.metrics["lr"], [0.1, 0.01, 0.001])


def test_ones_own_step_takes_another_optimizer():
    made = own_step()
    made.step(np.zeros(2))
    made.optimizer = gr.optim.Adam(0.25)
    before = made.params["w"].copy()
    made.step(np.zeros(2))
    np.testing.assert_allclose(before - made.params["w"], 0.25, rtol=1e-6)


@pytest.mark.parametrize("wrong", ["adam", gr.optim.SGD, None, 0.1])
def test_what_is_no_optimizer(wrong):
    with pytest.raises(TypeError, match=r"optimizer must be one of gr\.optim"):
        trainer().optimizer = wrong


# Attributes


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (trainer, "model", "read-only"),
        (trainer, "step", "read-only"),
        (trainer, "params", "read-only"),
        (trainer, "optimiser", "did you mean 'optimizer'"),
        (trainer, "lr", r"there is no attribute 'lr' to set: the rate belongs to the optimizer: optimizer=gr\.optim"),
        (trainer, "epochs", "epochs are an argument of fit"),
        (trainer, "max_grad_norm", "clip_norm= bounds"),
        (lambda: gr.Loader((X, Y), 4), "num_workers", "give num_threads"),
        (lambda: gr.nn.Linear(4, 3), "in_features", "did you mean 'inputs'"),
        (lambda: gr.Loader((X, Y), 4), "batch_size", "read-only"),
        (lambda: gr.Loader((X, Y), 4), "shuffle", "read-only"),
        (lambda: gr.Loader((X, Y), 4), "seed", "read-only"),
        (lambda: gr.Loader((X, Y), 4), "batchsize", "did you mean 'batch_size'"),
        (lambda: gr.nn.Linear(4, 3), "outputs", "read-only"),
        (lambda: gr.nn.Linear(4, 3), "activation", "an activation is a layer of its own"),
        (lambda: gr.nn.Dropout(0.5), "p", "read-only"),
        (lambda: gr.nn.Dropout(0.5), "rate", "did you mean 'p'"),
        (model, "layers", "read-only"),
        (lambda: copy.deepcopy(gr.nn.Linear(4, 3)), "inputs", "read-only"),
        (lambda: pickle.loads(pickle.dumps(gr.nn.Dropout(0.5))), "p", "read-only"),
    ],
)
def test_nothing_that_is_assigned_is_lost(make, name, words):
    made = make()
    with pytest.raises(AttributeError, match=words):
        setattr(made, name, 3)


def test_a_users_subclass_keeps_what_it_likes_and_what_it_changes_counts():
    class Scaled(gr.nn.Layer):
        def __init__(self):
            self.kind = "relu"
            self.inner = gr.nn.Linear(4, 3)

        def children(self):
            return {"inner": self.inner}

        def trace(self, tracer, x):
            y = tracer.call("inner", self.inner, x)
            return tracer.node("activation", {"x": y}, tracer.shape(y), {"activation": self.kind})

    layer = Scaled().init(0)
    layer.remark = "mine"
    made = gr.Trainer(layer, loss="mse", optimizer=gr.optim.SGD(0.0))
    targets = np.zeros((60, 3), np.float32)
    whole = [made.step(X, targets) for _ in range(2)]
    layer.kind = "tanh"
    assert whole[0] == whole[1] != made.step(X, targets)

    class Named(gr.Trainer):
        pass

    mine = Named(model())
    mine.purpose = "a test"
    with pytest.raises(AttributeError, match="read-only"):
        mine.model = model()


def test_the_habit_of_parameters():
    made = model()
    assert not hasattr(made, "parameters")
    with pytest.raises(AttributeError, match=r"model\.params"):
        made.parameters()
    with pytest.raises(TypeError, match="parameter_specs"):
        type("Old", (gr.nn.Layer,), {"parameters": lambda self: {}})


# Seeds


def test_a_seed_does_not_overwrite_what_was_trained_nor_pretend_to():
    made = model()
    gr.Trainer(made, seed=1).fit((X, Y), 1, verbose=False)
    with pytest.raises(ValueError, match=r"reset\(seed\)"):
        gr.Trainer(made, seed=2)
    weights = made.params["0.weight"].copy()
    again = gr.Trainer(made)  # to train it further
    np.testing.assert_array_equal(again.params["0.weight"], weights)
    again.reset(2)
    np.testing.assert_array_equal(again.params["0.weight"], model().init(2).params["0.weight"])
    assert (again.epoch, again.step_count, again.seed, len(again.history)) == (0, 0, 2, 0)
    gr.Trainer(made, seed=3)  # nothing was trained since
    made.init(5)
    gr.Trainer(made, seed=6)


def test_a_single_step_is_a_training_too(tmp_path):
    made = model()
    first = gr.Trainer(made)
    first.step(X, Y)
    with pytest.raises(ValueError, match="has updated"):
        gr.Trainer(made, seed=2)
    first.save(tmp_path / "m")
    first.load(tmp_path / "m")
    assert gr.Trainer(made, seed=2).seed == 2


def test_reset_is_as_a_new_trainer():
    made = trainer(gr.optim.Adam(1e-2), seed=4)
    made.fit((X, Y), 2, verbose=False)
    made.reset(4)
    fresh = trainer(gr.optim.Adam(1e-2), seed=4)
    assert made.fit((X, Y), 2, verbose=False).metrics["loss"] == fresh.fit((X, Y), 2, verbose=False).metrics["loss"]
