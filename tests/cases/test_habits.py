"""Habits from other libraries, and arguments that would be ignored: an error that names this library's way."""

import inspect

import numpy as np
import pytest

import gradring as gr
from cases.habits import X, Y, own, trainer

BATCHES = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 48, 8)]


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
