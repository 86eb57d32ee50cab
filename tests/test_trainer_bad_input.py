"""Arrays that do not fit a model: a clear error that names what was expected and what was given, or the right result."""

import numpy as np
import pytest

import gradring as gr
from helpers import mlp, snapshot


@pytest.fixture
def trainer():
    return gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.SGD(0.1, momentum=0.9))


def ways(trainer, x, y):
    """Every way to hand arrays to a trainer."""
    return {
        "step": lambda: trainer.step(x, y),
        "fit": lambda: trainer.fit((x, y), batch_size=4),
        "evaluate": lambda: trainer.evaluate((x, y)),
    }


WRONG = {
    "too few features": (np.zeros((6, 7), "f4"), np.zeros(6, int), ValueError, r"\(\d+, 7\)"),
    "one axis": (np.zeros(8, "f4"), np.zeros(8, int), ValueError, r"\(\d+,\)"),
    "three axes": (np.zeros((6, 8, 1), "f4"), np.zeros(6, int), ValueError, r"\(\d+, 8, 1\)"),
    "fewer labels": (np.zeros((6, 8), "f4"), np.zeros(5, int), ValueError, r"6.*5|5.*6"),
    "no samples": (np.zeros((0, 8), "f4"), np.zeros(0, int), ValueError, r"\(0, 8\).*at least one sample"),
    "no features": (np.zeros((6, 0), "f4"), np.zeros(6, int), ValueError, r"\(\d+, 0\)"),
    "float labels": (np.zeros((6, 8), "f4"), np.zeros(6), TypeError, r"int.*float64"),
    "one-hot labels": (np.zeros((6, 8), "f4"), np.zeros((6, 3), int), ValueError, r"\(\d+, 3\)"),
    "scalar labels": (np.zeros((6, 8), "f4"), np.int64(0), (TypeError, ValueError), "y|source"),
    "complex": (np.zeros((6, 8), complex), np.zeros(6, int), TypeError, "complex128"),
    "objects": (np.array([[None] * 8] * 6), np.zeros(6, int), TypeError, "object"),
    "strings": (np.array([["a"] * 8] * 6), np.zeros(6, int), TypeError, "U1"),
    "a list of lists": ([[1.0, 2.0]], [[0]], (TypeError, ValueError), r"array|\(1, 2\)"),
    "none": (None, None, (TypeError, ValueError), r"."),
    "labels too large": (
        np.zeros((6, 8), "f4"),
        np.array([0, 1, 2, 3, 0, 0]),
        ValueError,
        r"label is 3, must be .* below 3",
    ),
    "labels negative": (
        np.zeros((6, 8), "f4"),
        np.array([0, 1, 2, -1, 0, 0]),
        ValueError,
        r"label is -1, must be at least 0",
    ),
    "labels huge": (np.zeros((6, 8), "f4"), np.full(6, 2**62), ValueError, r"label is 4611686018427387904"),
    "labels unsigned and huge": (
        np.zeros((6, 8), "f4"),
        np.full(6, 2**64 - 1, "u8"),
        (ValueError, TypeError),
        r"label|uint64",
    ),
}


@pytest.mark.parametrize("way", ["step", "fit", "evaluate"])
@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_do_not_fit_change_nothing(trainer, case, way):
    x, y, error, words = WRONG[case]
    before = snapshot(trainer)
    with pytest.raises(error, match=words) as raised:
        ways(trainer, x, y)[way]()
    assert str(raised.value).startswith("["), "an error names its operation first"
    after = snapshot(trainer)
    for name in before:
        if name not in ("draw", "batch"):
            assert after[name] == before[name], name
    rng = np.random.default_rng(0)
    good = rng.standard_normal((8, 8), np.float32), rng.integers(0, 3, 8)
    assert np.isfinite(trainer.step(*good)) and trainer.step_count == 1


def variants():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((40, 8)).astype("f4"), rng.integers(0, 3, 40)
    wide, tall = np.zeros((40, 16), "f4"), np.zeros((80, 8), "f4")
    wide[:, ::2], tall[::2] = x, x
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view("f4").reshape(40, 8)
    every_second = np.zeros(80, int)
    every_second[::2] = y
    return (
        x,
        y,
        {
            "strided columns": (wide[:, ::2], y),
            "strided rows": (tall[::2], y),
            "negative strides": (x[::-1][::-1], np.ascontiguousarray(y[::-1])[::-1]),
            "reversed twice over": (np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1], y),
            "column order": (np.asfortranarray(x), y),
            "read-only": (read_only, y),
            "unaligned": (unaligned, y),
            "foreign byte order": (x.astype(">f4"), y.astype(">i8")),
            "float64": (x.astype("f8"), y),
            "labels int32": (x, y.astype("i4")),
            "labels uint8": (x, y.astype("u1")),
            "labels strided": (x, every_second[::2]),
            "labels as a column": (x, y[:, None]),
        },
    )


@pytest.mark.parametrize("way", ["step", "fit", "batches"])
@pytest.mark.parametrize("case", list(variants()[2]))
def test_any_memory_layout_gives_the_same_bits(case, way):
    x, y, others = variants()

    def trained(x, y):
        trainer = gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.Adam(1e-2))
        if way == "step":
            for _ in range(3):
                trainer.step(x, y)
        else:
            data = gr.Loader((x, y), 16, shuffle=True)
            trainer.fit(data if way == "fit" else list(data), epochs=2)
        return snapshot(trainer)

    before = tuple(np.array(array) for array in others[case])
    assert trained(*others[case]) == trained(x, y)
    for array, old in zip(others[case], before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("way", ["step", "fit"])
def test_a_loss_that_is_not_finite_leaves_the_parameters_and_names_the_step(trainer, value, way):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 8), np.float32), rng.integers(0, 3, 12)
    good = gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.SGD(0.1, momentum=0.9))
    for batch in range(2):
        good.step(x[4 * batch : 4 * batch + 4], y[4 * batch : 4 * batch + 4])
    x[9, 3] = value
    with pytest.raises(gr.NonFinite, match=r"step 3 .*not finite") as raised:
        if way == "step":
            for batch in range(3):
                trainer.step(x[4 * batch : 4 * batch + 4], y[4 * batch : 4 * batch + 4])
        else:
            trainer.fit(gr.Loader((x, y), 4))
    assert "nonfinite='ignore'" in str(raised.value)
    ours, theirs = snapshot(trainer), snapshot(good)
    for name in theirs:
        if name not in ("draw", "batch"):
            assert ours[name] == theirs[name], name
    relaxed = gr.Trainer(mlp(8, 16, 3), nonfinite="ignore")
    relaxed.fit(gr.Loader((x, y), 4))
    assert relaxed.step_count == 3


def test_an_evaluation_that_is_not_finite_says_so(trainer):
    x, y = np.ones((12, 8), "f4"), np.zeros(12, int)
    trainer.fit((x, y), batch_size=4)
    before = snapshot(trainer)
    x[9, 3] = np.nan
    for data, batch in ((gr.Loader((x, y), 4), 0), ([(x[:8], y[:8]), (x[8:], y[8:])], 1)):
        with pytest.raises(gr.NonFinite, match=rf"^\[evaluate\] the cross_entropy loss of batch {batch} is not finite"):
            trainer.evaluate(data)
    assert snapshot(trainer) == before
    assert np.isnan(gr.Trainer(mlp(8, 16, 3), nonfinite="ignore").evaluate((x, y))["loss"])


def test_a_wrong_label_is_named_after_a_prediction_too(trainer):
    x = np.zeros((6, 8), "f4")
    trainer.predict(x)
    with pytest.raises(ValueError, match=r"label is 3, must be at least 0 and below 3"):
        trainer.step(x, np.full(6, 3))
    with pytest.raises(ValueError, match=r"below 3, the number of classes$"):
        trainer.evaluate((x, np.full(6, 3)))


def test_parameters_that_explode_are_found(blobs):
    trainer = gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.SGD(1e30))
    with pytest.raises(gr.NonFinite, match=r"after step \d+"):
        trainer.fit(blobs, epochs=5)
    steps = trainer.step_count
    assert steps >= 1 and trainer.state_dict()["step"] == steps


def test_arrays_changed_while_in_use_are_read_and_never_written(blobs):
    """A callback that changes the data while a fit runs gets other numbers and no crash."""
    x, y = (array.copy() for array in blobs)

    class Change(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            x[...] = 0
            y[...] = 2

    trainer = gr.Trainer(mlp(8, 16, 3))
    history = trainer.fit(gr.Loader((x, y), 16), epochs=8, callbacks=[Change()])
    assert history.last["accuracy"] == 1.0 and (x == 0).all() and (y == 2).all()


def test_labels_made_wrong_while_in_use_are_found(blobs):
    x, y = (array.copy() for array in blobs)

    class Change(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            y[17] = 10**15

    with pytest.raises(ValueError, match=r"sample 17\): label is 1000000000000000"):
        gr.Trainer(mlp(8, 16, 3)).fit(gr.Loader((x, y), 16), epochs=3, callbacks=[Change()])


def test_arrays_freed_while_in_use_stay_alive():
    def make():
        rng = np.random.default_rng(0)
        return rng.standard_normal((5000, 8)).astype("f4"), rng.integers(0, 3, 5000)

    class Drop(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            held.clear()
            self.junk = [np.full((5000, 8), np.nan, "f4") for _ in range(8)]

    a, b = gr.Trainer(mlp(8, 16, 3)), gr.Trainer(mlp(8, 16, 3))
    held = [gr.Loader(make(), 50, shuffle=True)]
    a.fit(held[0], epochs=3, callbacks=[Drop()])
    b.fit(gr.Loader(make(), 50, shuffle=True), epochs=3)
    assert snapshot(a) == snapshot(b)


def test_more_threads_than_cores(blobs):
    trainer = gr.Trainer(mlp(8, 64, 3), threads=13)
    trainer.fit(blobs, epochs=2)
    assert np.isfinite(trainer.evaluate(blobs)["loss"])


@pytest.mark.parametrize("threads", [257, 10**6, 2**40])
def test_absurdly_many_threads(threads):
    with pytest.raises(ValueError, match="threads"):
        gr.Trainer(mlp(8, 4, 3), threads=threads)


def test_layers_that_do_not_fit_are_both_named():
    model = gr.nn.Sequential(gr.nn.Linear(8, 16), gr.nn.ReLU(), gr.nn.Linear(17, 3))
    with pytest.raises(ValueError) as raised:
        gr.Trainer(model).step(np.zeros((4, 8), "f4"), np.zeros(4, int))
    text = str(raised.value)
    assert "Linear(17, 3)" in text and "16" in text and "ReLU" in text, text


def test_a_batch_larger_than_the_data_or_of_no_size(blobs):
    trainer = gr.Trainer(mlp(8, 16, 3))
    trainer.fit(blobs, batch_size=10**12)
    assert trainer.step_count == 1
    for size in (0, -1, 2.5):
        with pytest.raises((ValueError, TypeError), match="batch_size"):
            trainer.fit(blobs, batch_size=size)


@pytest.mark.parametrize("way", ["predict", "evaluate"])
@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_no_size(trainer, blobs, way, size):
    with pytest.raises(ValueError, match="batch_size"):
        trainer.predict(blobs[0], batch_size=size) if way == "predict" else trainer.evaluate(blobs, batch_size=size)


def test_predict_checks_its_samples(trainer):
    for x, words in (
        (np.zeros((3, 7), "f4"), r"\(3, 7\)"),
        (np.zeros((2, 8), complex), "complex128"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            trainer.predict(x)
    assert trainer.predict(np.zeros((0, 8), "f4")).shape == (0, 3)


def test_what_is_no_source(trainer):
    for data in (None, 3, np.zeros((4, 8)), iter([]), (np.zeros((4, 8), "f4"),)):
        with pytest.raises((TypeError, ValueError), match=r"^\["):
            trainer.fit(data)
