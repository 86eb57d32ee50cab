"""Kind 3: nothing is ignored in silence."""

import copy
import pickle

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(3)
X = RNG.standard_normal((60, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 60)


def model():
    return gr.nn.Sequential(gr.nn.Linear(4, 5), gr.nn.ReLU(), gr.nn.Linear(5, 3))


def trainer(optimizer=None, **options):
    return gr.Trainer(model(), optimizer=optimizer or gr.optim.SGD(0.1), **options)


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


# Losses


@pytest.mark.parametrize("last", [gr.nn.Sigmoid])
def test_a_sigmoid_before_the_loss_that_has_one(last):
    ones = (Y[:, None] > 0).astype(np.float32)
    for end in ([last()], [last(), gr.nn.Flatten()]):
        made = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 1), *end), loss="binary_cross_entropy")
        for way in (
            lambda made: made.step(X, ones),
            lambda made: made.fit((X, ones)),
            lambda made: made.evaluate((X, ones)),
        ):
            with pytest.raises(ValueError, match="sigmoid.*logits"):
                way(made)
    gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 1), last()), loss="mse").step(X, ones)


@pytest.mark.parametrize("low_high", [(-1, 1), (0, 255), (0, 1.001), (float("nan"), 1)])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_targets_that_are_no_probabilities(low_high, columns, dtype):
    targets = np.zeros((60, columns), dtype)
    targets[37] = targets[41] = low_high[1] if low_high[1] != 1 else low_high[0]
    net = gr.nn.Sequential(gr.nn.Linear(4, columns))
    made = gr.Trainer(net, loss="binary_cross_entropy", dtype=dtype, optimizer=gr.optim.SGD(0.1))
    before = made.params["0.weight"].copy()
    for way in (
        lambda: made.step(X, targets),
        lambda: made.fit(gr.Loader((X, targets), 60), 1, verbose=False),
        lambda: made.evaluate((X, targets)),
        lambda: made.fit([(X, targets)], 1, verbose=False),
    ):
        with pytest.raises(ValueError, match=r"binary_cross_entropy.*row 37.*from 0 to 1"):
            way()
    np.testing.assert_array_equal(made.params["0.weight"], before)
    logits = np.zeros((60, columns), dtype)
    for reduction in ("mean", "sample", "sum"):
        with pytest.raises(ValueError, match="sample 37"):
            gr.ops.binary_cross_entropy(logits, targets, reduction=reduction)
        with pytest.raises(ValueError, match="sample 37"):
            gr.ops.binary_cross_entropy_vjp(1.0, logits, targets, reduction=reduction)


# Callbacks and sources


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (gr.callbacks.EarlyStop, "patiance", "did you mean 'patience'"),
        (gr.callbacks.EarlyStop, "min_delta", "read-only"),
        (gr.callbacks.EarlyStop, "metric", "read-only"),
        (lambda: gr.callbacks.Checkpoint("m"), "evry", "did you mean 'every'"),
        (lambda: gr.callbacks.Checkpoint("m"), "keep", "read-only"),
        (lambda: gr.callbacks.ReduceLROnPlateau("loss"), "factor", "read-only"),
        (lambda: gr.callbacks.Trace("t.json"), "event", "did you mean 'events'"),
        (gr.callbacks.Progress, "style", "there is no attribute 'style'"),
        (lambda: gr.sources.Callable(len, 3), "length", "read-only"),
        (lambda: gr.sources.Callable(len, 3), "lenght", "did you mean 'length'"),
        (lambda: gr.sources.Concat([X, X]), "parts", "read-only"),
        (lambda: pickle.loads(pickle.dumps(gr.sources.Concat([X, X]))), "parts", "read-only"),
    ],
)
def test_callbacks_and_sources_ignore_nothing(make, name, words):
    with pytest.raises(AttributeError, match=words):
        setattr(make(), name, 3)


def test_a_users_callback_keeps_what_it_likes():
    class Mine(gr.callbacks.EarlyStop):
        def on_report(self, run):
            self.reports = getattr(self, "reports", 0) + 1

    mine = Mine("loss")
    trainer().fit((X, Y), 2, callbacks=[mine], verbose=False)
    mine.remark = "mine"
    assert mine.reports >= 1 and mine.remark == "mine"


def test_two_callbacks_never_write_one_file(tmp_path):
    path, link = tmp_path / "m", tmp_path / "link"
    link.symlink_to(tmp_path)
    once = gr.callbacks.Checkpoint(path)
    for other in (
        gr.callbacks.Checkpoint(path, monitor="loss"),
        gr.callbacks.Csv(path),
        gr.callbacks.Trace(link / "m"),
        gr.callbacks.Checkpoint(link / "m"),
    ):
        with pytest.raises(ValueError, match=r"among callbacks both write .*give each a file of its own"):
            trainer().fit((X, Y), 1, callbacks=[once, other], verbose=False)
    assert not path.exists()


@pytest.mark.parametrize(
    ("verbose", "lines"), [(0, 0), (False, 0), (1, 2), (True, 2), (2, 2), ("lines", 2), ("auto", 2)]
)
def test_the_habit_of_numbers_for_verbose(verbose, lines, capsys):
    trainer().fit((X, Y), 2, verbose=verbose)
    assert capsys.readouterr().err.count("epoch ") == lines


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"verbose": 3}, ValueError, "verbose"),
        ({"verbose": "yes"}, ValueError, "verbose"),
        ({"validate": 0.2}, TypeError, r"split\(0\.8\)"),
        ({"resume": True}, TypeError, "resume must be None, the path of a checkpoint or 'auto', got True"),
        ({"resume": 3}, TypeError, "resume must be"),
    ],
)
def test_habits_that_are_told(options, error, words):
    with pytest.raises(error, match=words):
        trainer().fit((X, Y), 1, **options)


# Arguments that would mean nothing


def own(**options):
    return gr.Trainer(step=lambda params, batch: (0.0, {"w": np.zeros(2)}), params={"w": np.zeros(2)}, **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", "mse"),
        ("metrics", ["mae"]),
        ("class_weight", {0: 2.0}),
        ("dtype", "float64"),
        ("threads", 2),
        ("tune", True),
    ],
)
def test_a_step_of_ones_own_refuses_what_only_a_model_reads(name, value):
    with pytest.raises(TypeError, match=rf"{name} goes with a model.*leave {name} out"):
        own(**{name: value})
    own(accumulate=2, clip_norm=1.0, seed=3, nonfinite="ignore", frozen=())


def test_a_batch_size_that_the_loader_does_not_have():
    loader = gr.Loader((X, Y), 20)
    with pytest.raises(ValueError, match=r"batch_size=7 is for arrays.*give it to the loader"):
        trainer().fit(loader, batch_size=7, verbose=False)
    made = trainer()
    made.fit(loader, batch_size=20, verbose=False)
    assert made.step_count == len(loader)


def test_an_accuracy_that_the_loss_cannot_count():
    for loss in ("mse", "mae", gr.losses.Huber()):
        with pytest.raises(ValueError, match=rf"accuracy is of classes, and the loss {loss} is of numbers"):
            gr.Trainer(gr.nn.Linear(4, 3), loss=loss, metrics=["accuracy"])
        assert gr.Trainer(gr.nn.Linear(4, 3), loss=loss).session.metric_names() == ("loss",)
    labels = np.arange(60) % 3

    def forward(z, y):
        return np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), y]

    def vjp(d, z, y):
        return d[:, None] * (np.exp(z - np.logaddexp.reduce(z, axis=1)[:, None]) - np.eye(3)[y])

    x = np.random.default_rng(5).standard_normal((60, 4))
    mine = gr.Trainer(gr.nn.Linear(4, 3), loss=gr.losses.Function(forward, vjp), metrics=["accuracy"], seed=1)
    usual = gr.Trainer(gr.nn.Linear(4, 3), seed=1)
    assert mine.evaluate((x, labels))["accuracy"] == usual.evaluate((x, labels))["accuracy"]


@pytest.mark.parametrize("views", [lambda w: (w, w), lambda w: (w[:3], w[2:]), lambda w: (w[1:2], w)])
def test_parameters_that_share_memory(views):
    a, b = views(np.zeros(5))
    with pytest.raises(ValueError, match=r"params\['[ab]'\] and params\['[ab]'\] share memory.*once"):
        gr.Trainer(step=lambda params, batch: (0.0, {}), params={"a": a, "b": b})


HIDDEN = {
    "a vjp": lambda hidden: gr.Trainer(
        gr.nn.Sequential(gr.nn.Linear(4, 3), gr.nn.Function(lambda x: x, lambda dy, x, y: hidden(dy)))
    ).step(np.ones((6, 4)), np.zeros(6, int)),
    "a forward pass": lambda hidden: gr.nn.Function(hidden, lambda dy, x, y: dy)(np.ones((6, 4))),
    "a loss": lambda hidden: gr.Trainer(
        gr.nn.Linear(4, 3), loss=gr.losses.Function(lambda z, y: hidden(z[:, 0]), lambda d, z, y: z)
    ).step(np.ones((6, 4)), np.zeros((6, 3))),
    "a gradient": lambda hidden: gr.Trainer(
        step=lambda params, batch: (0.0, {"w": hidden(np.ones(2))}), params={"w": np.zeros(2)}
    ).step(np.ones(3)),
    "a sample": lambda hidden: gr.Loader(gr.sources.Callable(lambda i: hidden(np.ones(2)), 5), 2, num_threads=0),
    "a transform": lambda hidden: next(
        iter(gr.Loader(np.ones((5, 2)), 2, transforms=[gr.transforms.Python(hidden)], num_threads=0))
    ),
    "the mean of Normalize": lambda hidden: gr.transforms.Normalize(hidden(np.ones(2)), 1.0),
    "indices": lambda hidden: gr.Loader(np.ones((5, 2)), 2, indices=hidden(np.arange(3))),
    "check_grad": lambda hidden: gr.check_grad(gr.ops.relu, hidden(np.ones(3))),
    "another axis": lambda hidden: gr.ops.softmax(hidden(np.ones((3, 2))), axis=0),
    "class weights": lambda hidden: gr.Trainer(gr.nn.Linear(4, 3), class_weight=hidden(np.ones(3))),
}


@pytest.mark.parametrize("place", HIDDEN)
def test_what_hides_values_is_refused_everywhere(place):
    with pytest.raises((TypeError, gr.LoaderError), match="hides values"):
        HIDDEN[place](lambda values: np.ma.masked_array(values, mask=np.arange(values.size).reshape(values.shape) == 0))


def test_an_honest_check_has_something_to_check():
    with pytest.raises(ValueError, match="nothing to check, because no argument is of floats"):
        gr.check_grad(np.square, [1, 2, 3], vjp=lambda dy, x: 3 * x * dy)
    with pytest.raises(TypeError, match="complex128"):
        gr.check_grad(np.square, np.array([1j]), vjp=lambda dy, x: 2 * x * dy)


def handler(name):
    return type("Mine", (gr.callbacks.Callback,), {name: lambda self, *given, **named: None})


def test_a_method_that_nothing_would_call():
    for name, words in (
        ("on_epoch_ends", "did you mean 'on_epoch_end'"),
        ("on_train_batch_end", "nothing calls"),
        ("on_begin", "a run calls on_fit_start, on_report, on_epoch_end, on_fit_end"),
    ):
        with pytest.raises(TypeError, match=rf"\[Callback\] Mine has {name}, which nothing calls: .*{words}|{words}"):
            handler(name)
    for name in ("on_report", "once", "_on_anything"):
        handler(name)
    assert type("Other", (gr.callbacks.Callback,), {"on": 3, "on_list": [1]})().on == 3


class Batches:
    """Batches that come from one iterator, so they come once."""

    def __init__(self, count):
        self.iterator = iter([(X, Y)] * count)

    def __iter__(self):
        return self.iterator


@pytest.mark.parametrize("made", [trainer, lambda: own(), lambda: trainer(metrics=[gr.metrics.TopK(2)])])
def test_data_without_batches(made):
    words = r"gave no batch.*a new iterator for each epoch"
    for count, run in (
        (0, lambda t, data: t.fit(data, verbose=False)),
        (2, lambda t, data: t.fit(data, 2, verbose=False)),
        (0, lambda t, data: t.evaluate(data)),
        (1, lambda t, data: t.fit((X, Y), 2, validate=data, verbose=False)),
    ):
        with pytest.raises(ValueError, match=words):
            run(made(), Batches(count))
    assert len(made().fit(Batches(4), 2, steps_per_epoch=2, verbose=False)) == 2


@pytest.mark.parametrize("value", ["a", -1, 1.5, None, 2**63])
def test_an_epoch_that_cannot_be(value):
    with pytest.raises((TypeError, ValueError), match=r"\[Trainer\] epoch must be an int"):
        trainer().epoch = value
