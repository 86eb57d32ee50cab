"""Labels, losses and sessions as users of other libraries write them."""

import numpy as np
import pytest

import gradring as gr
from cases.habits import RNG, X, Y, trainer
from gradring.session import Session

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


@pytest.mark.parametrize("number", [2**64 - 1, 2**63])
def test_unsigned_integers_of_a_function_are_shown_as_they_are(number):
    """The loader cannot call the function again to see what it gave."""
    numbers = np.arange(8, dtype=np.uint64) % np.uint64(3)
    numbers[5] = number
    fine = np.arange(8) % 3

    def fitted(ids, labels):
        model = gr.nn.Sequential(gr.nn.Embedding(5, 2), gr.nn.Linear(2, 3))
        source = gr.sources.Callable(lambda i: (ids[i], labels[i]), 8)
        with gr.Loader(source, batch_size=4) as loader:
            gr.Trainer(model).fit(loader, verbose=False)

    with pytest.raises(ValueError, match=rf"sample 5\): the id is {number}: must be"):
        fitted(numbers, fine)
    with pytest.raises(ValueError, match=r"sample 5\): label is out of range: must be"):
        fitted(fine, numbers)
    with pytest.raises(ValueError, match=r"sample 5\): the id is -1: must be"):  # beside labels of uint64
        fitted(np.where(fine == 2, -1, fine)[[0, 1, 0, 1, 0, 2, 1, 0]], numbers % np.uint64(3))


@pytest.mark.parametrize(
    "dtype, number",
    [(np.uint64, 2**64 - 1), (np.uint64, 2**63), (np.uint64, 3), (np.int64, -1), (np.uint32, 2**32 - 1)],
)
def test_a_label_that_one_hot_refuses_is_shown_as_it_is(dtype, number):
    labels = np.array([0, 2, number, 1], dtype)
    with (
        gr.Loader(labels, batch_size=4, transforms=gr.transforms.OneHot(3)) as loader,
        pytest.raises(ValueError, match=rf"sample 2 .*OneHot: label {number} is not in \[0, 3\)"),
    ):
        next(iter(loader))


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
