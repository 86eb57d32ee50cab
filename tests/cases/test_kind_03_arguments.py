"""Nothing is ignored: losses, callbacks, sources and arguments that would mean nothing."""

import pickle

import numpy as np
import pytest

import gradring as gr
from cases.silence import X, Y, trainer

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
