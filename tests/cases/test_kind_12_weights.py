"""Kind 12, of weights and losses: what a user plainly expects of them is there, and means what its formula says."""

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(12)
X, Y = RNG.standard_normal((30, 5)).astype(np.float32), RNG.integers(0, 3, 30)
WEIGHT = RNG.uniform(0.1, 4, 30).astype(np.float32)
REAL = RNG.standard_normal((30, 3)).astype(np.float32)


def trainer(loss="cross_entropy", **options):
    model = gr.nn.Sequential(gr.nn.Linear(5, 7), gr.nn.GELU("none"), gr.nn.Linear(7, 3)).init(3)
    return gr.Trainer(model, loss=loss, optimizer=gr.optim.SGD(0.1), **options)


def logs(outputs):
    shifted = outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def of_labels(outputs):
    return -logs(outputs)[np.arange(len(Y)), Y]


BY_CLASS = np.array([0.5, 2.0, 3.0])
SOFT = RNG.dirichlet(np.ones(3), 30).astype(np.float32)
SMOOTH = 0.8 * np.eye(3)[Y] + 0.2 / 3
# What is given, its options, and the formula of the loss from the outputs.
CASES = {
    "sample weights": ((X, Y, WEIGHT), {}, lambda z: np.average(of_labels(z), weights=WEIGHT)),
    "class weights": (
        (X, Y),
        {"class_weight": dict(enumerate(BY_CLASS))},
        lambda z: np.average(of_labels(z), weights=BY_CLASS[Y]),
    ),
    "both": (
        (X, Y, WEIGHT),
        {"class_weight": BY_CLASS},
        lambda z: np.average(of_labels(z), weights=WEIGHT * BY_CLASS[Y]),
    ),
    "soft labels": ((X, SOFT), {}, lambda z: -(SOFT * logs(z)).sum(axis=1).mean()),
    "label smoothing": (
        (X, Y),
        {"loss": gr.losses.CrossEntropy(label_smoothing=0.2)},
        lambda z: -(SMOOTH * logs(z)).sum(axis=1).mean(),
    ),
    "a sum": ((X, Y), {"loss": gr.losses.CrossEntropy(reduction="sum")}, lambda z: of_labels(z).sum()),
    "mae": ((X, REAL), {"loss": "mae"}, lambda z: np.abs(z - REAL).mean()),
    "huber": (
        (X, REAL),
        {"loss": gr.losses.Huber(0.5)},
        lambda z: np.where(np.abs(z - REAL) < 0.5, (z - REAL) ** 2 / 2, 0.5 * (np.abs(z - REAL) - 0.25)).mean(),
    ),
    "a loss of one's own": (
        (X, REAL),
        {
            "loss": gr.losses.Function(
                lambda z, y: ((z - y) ** 4).mean(axis=1), lambda d, z, y: d[:, None] * 4 * (z - y) ** 3 / 3
            )
        },
        lambda z: ((z - REAL) ** 4).mean(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loss_is_its_formula_through_uneven_batches(case):
    given, options, formula = CASES[case]
    made = trainer(**options)
    want = formula(made.predict(X))
    assert made.evaluate(given)["loss"] == pytest.approx(want, rel=1e-5)
    batches = [tuple(field[first : first + 7] for field in given) for first in range(0, 30, 7)]
    assert made.evaluate(batches)["loss"] == pytest.approx(want, rel=1e-5)  # sum over sum, and not a mean of means


@pytest.mark.parametrize("case", [case for case in CASES if case != "a sum"])
def test_a_step_follows_its_formula(case):
    """The update of a weight is the rate times the central difference of the formula."""
    given, options, formula = CASES[case]
    made = trainer(dtype="float64", **options)
    name, place = "2.weight", (4, 1)
    view = made.params[name]
    value, around = float(view[place]), []
    for shift in (1e-5, -1e-5):
        view[place] = value + shift
        around.append(formula(made.predict(X)))
    view[place] = value
    made.step(*given)
    slope = (around[0] - around[1]) / 2e-5
    assert (value - float(made.params[name][place])) / 0.1 == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_a_metric_of_ones_own_beside_those_that_are_named():
    def far(predictions, targets):
        return float(np.abs(predictions - targets).max())

    made = trainer("mse", metrics=["mae", "r2", far])
    got, outputs = made.evaluate([(X[:11], REAL[:11]), (X[11:], REAL[11:])]), made.predict(X)
    assert got["far"] == pytest.approx(np.abs(outputs - REAL).max(), rel=1e-5)
    assert got["mae"] == pytest.approx(np.abs(outputs - REAL).mean(), rel=1e-5)


def test_accuracy_is_there_where_the_data_are_batches():
    history = trainer().fit([(X[:9], Y[:9]), (X[9:], Y[9:])], 2, validate=[(X, Y)], verbose=False)
    assert {"accuracy", "val_accuracy"} <= history.metrics.keys()


def test_dropout_of_everything_passes_nothing():
    model = gr.nn.Sequential(gr.nn.Dropout(1.0), gr.nn.Linear(5, 3)).init(0)
    before = model.params["1.weight"].copy()
    gr.Trainer(model, optimizer=gr.optim.SGD(1.0)).step(X, Y)
    np.testing.assert_array_equal(model.params["1.weight"], before)
