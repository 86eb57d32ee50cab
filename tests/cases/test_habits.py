"""Habits from other libraries, and arguments that would be ignored: an error that names this library's way."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import gradring as gr
from gradring import checkpoint
from gradring.cli import main
from gradring.session import Session

RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((48, 4)).astype(np.float32), RNG.integers(0, 3, 48)
BATCHES = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 48, 8)]


def trainer(loss="cross_entropy", outputs=3, **options):
    model = gr.nn.Sequential(gr.nn.Linear(4, outputs)).init(1)
    return gr.Trainer(model, loss=loss, optimizer=gr.optim.SGD(0.1), **options)


def own():
    return gr.Trainer(
        step=lambda p, b: (0.0, {"w": np.zeros(1)}), params={"w": np.zeros(1)}, optimizer=gr.optim.SGD(0.1)
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t.fit(X, Y, epochs=3), r"one pair: fit\(\(x, y\)"),
        (lambda t: t.fit(X, Y, 3), r"one pair: fit\(\(x, y\)"),
        (lambda t: t.fit(X, y=Y), r"one pair, fit\(\(x, y\)"),
        (lambda t: t.fit(x=X, y=Y), r"one pair, fit\(\(x, y\)"),
        (lambda t: t.fit((X, Y), validation_data=(X, Y)), r"give the data as validate="),
        (lambda t: t.fit((X, Y), validation_split=0.2), r"\.split\(0\.8\)"),
        (lambda t: t.fit((X, Y), sample_weight=np.ones(48)), r"weights are the third field: fit\(\(x, y, weight\)\)"),
        (lambda t: t.fit((X, Y), max_epochs=3), r"epochs= is their number"),
        (lambda t: t.fit((X, Y), class_weight="balanced"), r"gr\.Trainer\(model, class_weight"),
        (lambda t: t.fit((X, Y), epoch=3), r"did you mean 'epochs'"),
        (lambda t: t.fit(), r"\[Trainer\.fit\].*missing.*'data'"),
        (lambda t: t.evaluate(X, y=Y), r"one pair"),
        (lambda t: t.evaluate((X, Y), sample_weight=np.ones(48)), r"weights are the third field"),
        (lambda t: t.step((X, Y)), r"\[Trainer\.step\].*one by one: step\(x, y\), or step\(\*batch\)"),
        (lambda t: t.step([X, Y]), r"one by one"),
        (lambda t: gr.Trainer(t.model, lr=0.1), r"belongs to the optimizer: optimizer=gr\.optim\.AdamW"),
        (lambda t: gr.Trainer(t.model, epochs=3), r"epochs are an argument of fit"),
        (lambda t: gr.Trainer(t.model, metric=["mae"]), r"did you mean 'metrics'"),
        (lambda t: gr.Loader((X, Y), 8, num_workers=2), r"num_threads"),
        (lambda t: gr.Loader((X, Y), 8, shuffel=True), r"did you mean 'shuffle'"),
        (lambda t: gr.nn.Linear(in_features=4, out_features=3), r"did you mean 'inputs'"),
        (lambda t: gr.nn.Dropout(rate=0.5), r"did you mean 'p'"),
        (
            lambda t: gr.callbacks.EarlyStop(monitr="val_loss"),
            r"its arguments are \(metric='val_loss', patience=5, \*, ",
        ),
    ],
)
def test_arguments_of_other_libraries(call, words):
    with pytest.raises(TypeError, match=words):
        call(trainer())


def test_a_type_error_from_within_is_not_changed():
    class Odd(gr.nn.Layer):
        def __init__(self):
            raise TypeError("mine")

    with pytest.raises(TypeError, match="^mine$"):
        Odd()
    with pytest.raises(TypeError, match=r"^\[Trainer\.fit\] callbacks must be"):
        trainer().fit((X, Y), callbacks=3)


def test_the_rest_of_the_names():
    for module, name, words in (
        (gr.nn, "Relu", r"did you mean gr\.nn\.ReLU"),
        (gr.nn, "Dense", r"gr\.nn\.Linear\(inputs, outputs\)"),
        (gr.nn, "Softmax", r"cross_entropy takes scores"),
        (gr.optim, "Adamw", r"did you mean gr\.optim\.AdamW"),
        (gr.losses, "Crossentropy", r"did you mean gr\.losses\.CrossEntropy"),
        (gr, "DataLoader", r"gr\.Loader\(source, batch_size\)"),
        (gr, "loader_", r"did you mean gr\.[Ll]oad"),
        (gr.callbacks, "ModelCheckpoint", r"gr\.callbacks\.Checkpoint\(path\)"),
        (gr.callbacks, "EarlyStoping", r"did you mean gr\.callbacks\.EarlyStop"),
        (gr.metrics, "F1Score", r"any function of predictions and targets"),
        (gr.transforms, "Normalise", r"did you mean gr\.transforms\.Normalize"),
        (gr.sources, "npy_", r"did you mean gr\.sources\.Npy"),
        (gr.optim.schedule, "CosineAnnealingLR", r"gr\.optim\.schedule\.cosine"),
    ):
        with pytest.raises(AttributeError, match=words):
            getattr(module, name)
    with pytest.raises(AttributeError, match=r"'rate'; did you mean 'p'"):
        gr.nn.Dropout(0.5).rate  # noqa: B018
    with pytest.raises(AttributeError, match=r"did you mean 'inputs'"):
        gr.nn.Linear(2, 3).in_features  # noqa: B018
    assert not hasattr(gr.nn.Linear(2, 3), "_something") and not hasattr(gr.nn, "__wrapped__")
    assert gr.errors.GradientMismatch is gr.check_grad.__globals__["GradientMismatch"]


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (gr.Trainer, ["model", "loss", "optimizer", "metrics"]),
        (gr.Loader, ["source", "batch_size", "global_batch"]),
        (gr.nn.Linear, ["inputs", "outputs", "bias"]),
        (gr.nn.ReLU, []),
        (gr.callbacks.EarlyStop, ["metric", "patience"]),
        (gr.optim.AdamW, ["lr", "betas"]),
        (gr.losses.Huber, ["delta"]),
        (gr.Trainer.predict, ["self", "x"]),
        (gr.transforms.Scale, ["a", "b"]),
        (gr.Trainer.fit, ["self", "data", "epochs"]),
    ],
)
def test_signatures(made, names):
    found = inspect.signature(made)
    assert [*found.parameters][: len(names)] == names and (names or not found.parameters)
    assert not {"args", "named", "given"} & found.parameters.keys()


def test_signatures_of_a_users_layer():
    class Mine(gr.nn.Layer):
        def __init__(self, width, depth=2):
            self.width = width

    assert str(inspect.signature(Mine)) == "(width, depth=2)"
    with pytest.raises(TypeError, match=r"did you mean 'width'"):
        Mine(widht=3)


# What would be ignored


@pytest.mark.parametrize("made", [trainer, own])
def test_a_size_for_batches_that_are_there(made):
    for data in (BATCHES, gr.Loader((X, Y), 8), iter(BATCHES)):
        with pytest.raises(ValueError, match=r"batch_size=4 is for arrays, and data has batches already"):
            made().fit(data, batch_size=4, steps_per_epoch=2, verbose=False)
    made().fit(gr.Loader((X, Y), 8), batch_size=8, verbose=False)


@pytest.mark.parametrize("made", [trainer, own])
def test_a_generator_with_steps_per_epoch(made):
    given = []

    def batches():
        while True:
            for batch in BATCHES:
                given.append(len(given))
                yield batch

    one = made()
    assert len(one.fit(batches(), 3, steps_per_epoch=5, verbose=False)) == 3
    assert one.step_count == len(given) == 15  # no batch was read that was not trained on
    with pytest.raises(TypeError, match=r"iterator, which can be read only once.*steps_per_epoch="):
        made().fit(batches(), 3, verbose=False)
    short = iter(BATCHES)
    with pytest.warns(UserWarning, match=r"ended after 2 of the steps_per_epoch=4 batches of epoch 2"):
        made().fit(short, 2, steps_per_epoch=4, verbose=False)
    with pytest.raises(ValueError, match="gave no batch"):
        made().fit(short, 1, steps_per_epoch=4, verbose=False)


def test_a_generator_trains_as_its_batches():
    one, other = trainer(), trainer()
    one.fit((batch for _ in range(2) for batch in BATCHES), 2, steps_per_epoch=6, verbose=False)
    other.fit(BATCHES, 2, verbose=False)
    np.testing.assert_array_equal(one.params["0.weight"], other.params["0.weight"])
    assert trainer().evaluate(iter(BATCHES)) == trainer().evaluate(BATCHES)


def test_the_epoch_of_a_loader_is_checked():
    loader = gr.Loader(np.arange(10), 4, shuffle=True)
    for bad in (-1, 1.5, "2", None, True, 2**64):
        with pytest.raises((TypeError, ValueError), match=r"\[Loader\] epoch must be an int"):
            loader.epoch = bad
    loader.epoch = 3
    chosen = [batch.tolist() for batch in loader]
    loader.set_epoch(3)
    assert chosen == [batch.tolist() for batch in loader] and loader.epoch == 4


TRANSFORMS = [
    (lambda: gr.transforms.Cast("float32"), "dtype"),
    (lambda: gr.transforms.Scale(2.0), "a"),
    (lambda: gr.transforms.Normalize(0.5, 2.0), "mean"),
    (lambda: gr.transforms.OneHot(3), "classes"),
    (lambda: gr.transforms.RandomFlip(), "p"),
    (lambda: gr.transforms.RandomCrop(2), "padding"),
    (lambda: gr.transforms.Python(np.negative), "fn"),
]


@pytest.mark.parametrize(("make", "name"), TRANSFORMS)
def test_transforms_are_fixed_once_made(make, name):
    made = make()
    with pytest.raises(AttributeError, match="read-only"):
        setattr(made, name, 5)
    with pytest.raises(AttributeError, match="there is no attribute"):
        made.scale = 3


# Structure


def test_tuples_of_arrays_are_not_stacked():
    made = trainer()
    for call in (
        lambda: made.predict((X, X)),
        lambda: made.model((X, X)),
        lambda: made.fit(((X, X), (Y, Y)), verbose=False),
        lambda: made.evaluate(((X, X), Y)),
        lambda: made.step((X, X), (Y, Y)),
        lambda: gr.Loader(((X, X), (Y, Y)), 1),
        lambda: gr.ops.relu((X, X)),
        lambda: made.predict(tuple(X)),
    ):
        with pytest.raises(TypeError, match=r"tuple of \d+ arrays"):
            call()
    assert made.predict(list(X)).shape == (48, 3)
    assert made.predict(((1, 2, 3, 4), (5, 6, 7, 8))).shape == (2, 3)


def test_predict_takes_a_list_of_batches():
    want = trainer().predict(X)
    for batches in (BATCHES, [{"y": y, "x": x} for x, y in BATCHES]):
        np.testing.assert_allclose(trainer().predict(batches), want, rtol=1e-6)


def test_lists_of_paths_are_no_fields(tmp_path):
    paths = [tmp_path / "a.npy", str(tmp_path / "b.npy")]
    np.save(paths[0], X)
    np.save(paths[1], Y)
    for call in (
        lambda: trainer().fit(paths, verbose=False),
        lambda: trainer().fit((X, Y), validate=paths, verbose=False),
        lambda: trainer().evaluate(paths),
        lambda: trainer().predict(paths),
        lambda: trainer().predict(paths[:1]),
        lambda: own().fit(paths, verbose=False),
    ):
        with pytest.raises(TypeError, match=r"a list of \d paths: .*gr\.sources\.Concat"):
            call()
    assert trainer().evaluate(tuple(paths)) == trainer().evaluate((X, Y))


# Labels and losses

SOFT = np.full((48, 3), 1 / 3, np.float32)


def with_row(row):
    soft = SOFT.copy()
    soft[37] = row
    return soft


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([0, 0, 0], "add up to 0"),
        ([1, 1, 0], "add up to 2"),
        ([0.5, 0.25, 0], "add up to 0.75, and not to 1: divide.*binary_cross_entropy"),
        ([1.5, 0, 0], "from 0 to 1"),
        ([np.nan, 0, 1], "from 0 to 1"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_soft_labels_that_are_no_distribution(row, words, dtype):
    soft = with_row(row).astype(dtype)
    for where, call in (
        ("37", lambda t: t.step(X, soft)),
        ("37", lambda t: t.evaluate((X, soft))),
        ("37", lambda t: t.fit((X, soft), verbose=False)),
        ("37", lambda t: t.fit(gr.Loader({"x": X, "y": soft}, 8, shuffle=True), verbose=False)),
        ("5 of that batch", lambda t: t.fit([(X[i : i + 8], soft[i : i + 8]) for i in range(0, 48, 8)], verbose=False)),
    ):
        with pytest.raises(ValueError, match=rf"\[cross_entropy\] batch .*sample {where}\): .*{words}"):
            call(trainer())
    with pytest.raises(ValueError, match="sample 37 is no distribution.*add up to 1"):
        gr.ops.softmax_cross_entropy(np.zeros((48, 3), np.float32), with_row(row))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_soft_labels_may_be_rounded(dtype):
    soft = RNG.random((48, 3))
    soft = (soft / soft.sum(1, keepdims=True)).round(3).astype(dtype)
    made = trainer(dtype="float64" if dtype == "float64" else "float32")
    assert np.isfinite(made.step(X, soft)) and np.isfinite(made.evaluate((X, soft))["loss"])


@pytest.mark.parametrize(
    ("y", "kind", "words"),
    [
        (Y.astype(float), TypeError, r"float64: y\.astype\(numpy\.int64\)"),
        (Y > 0, TypeError, r"bool: y\.astype\(numpy\.int64\).*binary_cross_entropy"),
        (
            np.where(Y > 1, np.nan, Y),
            ValueError,
            r"y of sample \d+ is missing \(NaN\), one of \d+: leave such samples out",
        ),
    ],
)
def test_labels_that_are_no_integers(y, kind, words):
    for call in (
        lambda t: t.step(X, y),
        lambda t: t.fit((X, y), verbose=False),
        lambda t: t.evaluate((X, y)),
        lambda t: t.fit([(X, y)], verbose=False),
    ):
        with pytest.raises(kind, match=words):
            call(trainer())


def test_labels_that_are_missing_in_a_table():
    pandas = pytest.importorskip("pandas")
    labels = pandas.Series([1, None] * 24, dtype="Int64")
    with pytest.raises(ValueError, match="y of sample 1 is missing"):
        trainer().fit((X, labels), verbose=False)


@pytest.mark.parametrize("end", [gr.nn.Sigmoid, lambda: gr.nn.Sequential(gr.nn.Sigmoid(), gr.nn.Flatten())])
def test_an_activation_before_cross_entropy(end):
    made = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 3), end()))
    for call in (lambda: made.step(X, Y), lambda: made.fit((X, Y), verbose=False), lambda: made.evaluate((X, Y))):
        with pytest.raises(ValueError, match="ends with a sigmoid.*logits"):
            call()
    gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 3), gr.nn.Sigmoid(), gr.nn.Linear(3, 3))).step(X, Y)


def test_cross_entropy_of_one_output():
    made = trainer(outputs=1)
    for call in (lambda: made.step(X, Y), lambda: made.fit((X, Y), verbose=False), lambda: made.evaluate((X, Y))):
        with pytest.raises(ValueError, match="one output, for which the loss is always 0.*binary_cross_entropy"):
            call()


def test_an_id_of_unsigned_integers_is_shown_as_it_is():
    model = gr.nn.Sequential(gr.nn.Embedding(5, 2), gr.nn.Flatten(), gr.nn.Linear(4, 3))
    ids = np.zeros((48, 2), np.uint64)
    ids[37, 1] = 2**64 - 1
    made = gr.Trainer(model)
    calls = (lambda: made.step(ids, Y), lambda: made.fit((ids, Y), verbose=False), lambda: made.evaluate((ids, Y)))
    for call in (*calls, lambda: made.predict(ids), lambda: model(ids)):
        with pytest.raises(ValueError, match=r"sample 37.* the id at place \(1,\) is 18446744073709551615: must be"):
            call()


# check_grad


def test_check_grad_needs_something_to_check():
    for call in (
        lambda: gr.check_grad(gr.ops.relu, np.zeros((0, 3))),
        lambda: gr.check_grad(np.square, np.zeros(0), vjp=lambda dy, x: 2 * x * dy),
        lambda: gr.check_grad(gr.ops.matmul, np.zeros((0, 3)), np.zeros((3, 0))),
    ):
        with pytest.raises(ValueError, match="nothing to check"):
            call()
    for options, words in (({"max_elements": 0}, "max_elements"), ({"tolerance": np.nan}, "tolerance")):
        with pytest.raises(ValueError, match=words):
            gr.check_grad(gr.ops.relu, np.ones((2, 3)), **options)
    with pytest.raises(gr.errors.GradientMismatch, match="NaN and infinity cannot be compared; give arguments"):
        gr.check_grad(lambda x: x * np.nan, np.array([-1.0]), vjp=lambda dy, x: dy)


# Sessions


@pytest.mark.parametrize(
    "name", ["optimizer", "loss", "limit", "accumulate", "clip_norm", "frozen", "params", "model", "step"]
)
def test_what_a_session_was_made_with_is_fixed(name):
    session = trainer().session
    with pytest.raises(AttributeError, match=r"\[Session\] .* is read-only"):
        setattr(session, name, "other")
    with pytest.raises(AttributeError, match="did you mean 'optimizer'"):
        session.optimiser = gr.optim.SGD(0.1)
    assert isinstance(session, Session)
    made = gr.Trainer(gr.nn.Linear(4, 3), optimizer=gr.optim.SGD(0.1))
    made.optimizer = gr.optim.Adam(0.5)
    assert made.session.optimizer is made.optimizer


# Callbacks and files


@pytest.mark.parametrize(
    "make",
    [
        gr.callbacks.EarlyStop,
        gr.callbacks.ReduceLROnPlateau,
        lambda metric, **options: gr.callbacks.Checkpoint("m", monitor=metric, **options),
        lambda metric, **options: gr.optim.schedule.plateau(1e-3, metric, **options),
    ],
)
def test_the_direction_of_a_metric_is_not_guessed(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fit(name, **options):
        def metric(predictions, targets):
            return 1.0

        metric.__name__ = name.removeprefix("val_")
        part = make(name, **options)
        watches = isinstance(part, gr.callbacks.Callback)
        made = gr.Trainer(gr.nn.Linear(4, 3), metrics=[metric], optimizer=gr.optim.SGD(0.1 if watches else part))
        made.fit((X, Y), validate=(X, Y), callbacks=[part] if watches else [], verbose=False)

    for name in ("val_auc", "f1", "top_speed"):
        with pytest.raises(ValueError, match=r"does not say whether more of it is better: give mode='max'"):
            fit(name)
        fit(name, mode="max")
    for name in ("val_stop_loss", "balanced_accuracy", "val_rmse", "pixel_error"):
        fit(name)


def test_what_callbacks_would_change_in_vain():
    class Adds(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.metrics["mine"] = 3.0

    class Keeps(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            mine = copy.deepcopy(run.metrics)  # a copy may be changed
            mine["mine"] = 3.0
            assert {**run.metrics, "mine": 3.0} == mine == pickle.loads(pickle.dumps(run.metrics)) | {"mine": 3.0}

    trainer().fit((X, Y), callbacks=[Keeps()], verbose=False)

    class Spells(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.stopp = "enough"

    with pytest.raises(TypeError, match=r"row of the history, and read-only: .*Trainer\(metrics=\[function\]\)"):
        trainer().fit((X, Y), callbacks=[Adds()], verbose=False)
    with pytest.raises(AttributeError, match="did you mean 'stop'"):
        trainer().fit((X, Y), callbacks=[Spells()], verbose=False)


def test_files_that_have_nothing_to_take(tmp_path):
    gr.nn.Sequential(gr.nn.Linear(4, 3)).init(0).save(tmp_path / "model")
    made = trainer()
    with pytest.raises(gr.CheckpointMismatch, match=r"a model alone.*weights_only=True"):
        made.load(tmp_path / "model")
    with pytest.raises(gr.CheckpointMismatch, match=r"a model alone"):
        made.fit((X, Y), resume=tmp_path / "model", verbose=False)
    with pytest.raises(gr.CheckpointMismatch, match=r"no parameter fits this model"):
        gr.Trainer(gr.nn.Sequential(gr.nn.Linear(9, 8))).load(tmp_path / "model", strict=False)
    assert made.load(tmp_path / "model", weights_only=True) == ["0.bias", "0.weight"]


@pytest.mark.parametrize("step", [1.5, "1_0", "\u0663", True, "0x1", "", None])
def test_counts_that_are_no_counts(step, tmp_path):
    made = trainer()
    made.step(X, Y)
    with pytest.raises(ValueError, match="step"):
        made.load_state_dict({**made.state_dict(), "step": step})
    if isinstance(step, str):
        made.save(tmp_path / "m")
        tensors, metadata = checkpoint.read(tmp_path / "m")
        checkpoint.write(tmp_path / "m", tensors, {**metadata, "step": step})
        with pytest.raises(gr.CheckpointCorrupt, match="step"):
            made.load(tmp_path / "m")
    with pytest.raises(ValueError, match="fresh is 5, and only 1 updates"):
        made.load_state_dict({**made.state_dict(), "fresh": 5})
    assert made.step_count == 1


# More structures


def test_records_are_fields_by_name():
    records = np.zeros(48, [("y", "i8"), ("x", "f4", 4)])
    records["x"], records["y"] = X, Y
    assert trainer().evaluate(records) == trainer().evaluate((X, Y))
    assert trainer().step(records) == trainer().step(X, Y)
    np.testing.assert_array_equal(trainer().predict(records), trainer().predict(X))
    one, other = trainer(), trainer()
    one.fit(records, 2, validate=records, verbose=False)
    other.fit((X, Y), 2, verbose=False)
    np.testing.assert_array_equal(one.params["0.weight"], other.params["0.weight"])


def test_predict_takes_a_named_field_by_its_name():
    loader = gr.Loader({"target": X * 0, "input": X}, 8)
    with pytest.raises(ValueError, match=r"fields 'target', 'input'.*needs 'x'"):
        trainer().predict(loader)


def test_rows_and_fields_of_nested_lists():
    with pytest.raises(TypeError, match=r"rows of one array as numpy\.array\(rows\).*tuple or a dict"):
        gr.Loader([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], 2)
    assert len(next(iter(gr.Loader(([1.0, 2.0], [3.0, 4.0]), 2)))) == 2


def test_samples_and_columns_that_lack_an_axis():
    with pytest.raises(ValueError, match=r"a list of samples is a data set, gr\.sources\.Callable"):
        trainer().fit(list(zip(X, Y, strict=True)), verbose=False)
    with pytest.raises(ValueError, match=r"y must be \(samples, 1\), as y\[:, None\] is"):
        trainer("mse", 1).step(X, X[:, 0])


def test_numbers_that_the_dtype_cannot_hold():
    x = X.astype(float)
    x[7, 2] = 1e300
    with pytest.raises(gr.NonFinite, match=r"x of sample 7 is 1e\+300 in column 2, which float32 cannot hold"):
        trainer().step(x, Y)
    with pytest.raises(ValueError, match=r"class_weight: 1e\+300 is beyond the range of float32"):
        trainer(class_weight={0: 1e300}).step(X, Y)
    made = trainer()
    with pytest.raises(ValueError, match=r"weights are below 1e-30.*multiply all by one number"):
        made.step(X, Y, np.full(48, 1e-45))
    assert np.isfinite(made.params["0.weight"]).all()


def test_a_state_that_nothing_would_read(tmp_path):
    class Half(gr.callbacks.Callback):
        def state_dict(self):
            return {"seen": 3}

    parts = [Half(), gr.callbacks.Checkpoint(tmp_path / "m")]
    trainer().fit((X, Y), callbacks=parts, verbose=False)
    with pytest.raises(TypeError, match=r"\[Half\] it overrides state_dict, and not load_state_dict"):
        trainer().fit((X, Y), 2, callbacks=parts, resume=tmp_path / "m", verbose=False)


def test_batches_to_validate_with_are_looked_at_before_the_first_step():
    made = trainer()
    with pytest.raises(ValueError, match="needs"):
        made.fit((X, Y), validate=[(X[:, :3], Y)], verbose=False)
    assert made.step_count == 0


def test_a_size_that_is_none():
    for data in ((X, Y), BATCHES, gr.Loader((X, Y), 8)):
        for size in ("8", 8.0, True, 0):
            with pytest.raises(
                (TypeError, ValueError), match=r"\[Trainer\.evaluate\] batch_size must be an int of at least 1"
            ):
                trainer().evaluate(data, batch_size=size)


# The command


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["digits", "--test-share", "0.5"], "--test-share is for your own arrays"),
        (["digits", "--scale", "none"], "--scale is for your own arrays"),
        (["digits", "--target", "y"], "--target is for your own arrays"),
        (["digits", "--folder", "here"], "--folder is for fashion-mnist"),
        (["--x", "x.npy", "--y", "y.npy", "--folder", "here"], "--folder is for fashion-mnist"),
        (["--x", "x.npy", "--y", "y.npy", "--resume", "--overwrite"], "leave one of the two out"),
        (["--x", "twice.csv", "--target", "y"], "two columns 'a': give each a name of its own"),
    ],
)
def test_options_that_would_be_ignored(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    (tmp_path / "twice.csv").write_text("a,a,y\n1,2,u\n3,4,v\n")
    assert main(["train", *options, "--epochs", "1", "--quiet"]) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors"))


def test_new_samples_far_from_those_of_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    np.save("far.npy", X.astype(float) * 1e300)
    assert main(["train", "--x", "x.npy", "--y", "y.npy", "--epochs", "1", "--quiet", "--optimizer", "adam",
                 "--weight-decay", "0.1"]) == 0  # fmt: skip
    assert main(["predict", "x.safetensors", "--x", "far.npy"]) == 1
    assert "which float32 cannot hold after the scaling" in capsys.readouterr().err


def test_a_layer_with_a_constructor_of_its_own_in_new():
    class Made(gr.nn.Layer):
        def __new__(cls, width):
            made = super().__new__(cls)
            made.width = width
            return made

    assert Made(3).width == 3
