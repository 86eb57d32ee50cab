"""Metrics: each against plain loops, and what a trainer makes of them."""

import math

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(21)


@pytest.mark.parametrize("rows", [1, 2, 17, 400])
def test_accuracy_and_top_k_against_loops(rows):
    scores, labels = RNG.standard_normal((rows, 6)), RNG.integers(0, 6, rows)
    right = sum(
        max(range(6), key=lambda c, row=row: row[c]) == label for row, label in zip(scores, labels, strict=True)
    )
    assert gr.metrics.Accuracy()(scores, labels) == right / rows
    for k in (1, 2, 5, 6, 9):
        among = sum(
            label in sorted(range(6), key=lambda c, r=row: -r[c])[:k] for row, label in zip(scores, labels, strict=True)
        )
        assert gr.metrics.TopK(k)(scores, labels) == among / rows
    assert gr.metrics.TopK(1)(scores, labels[:, None]) == right / rows


def test_accuracy_of_logits():
    logits, wanted = np.array([[1.0, -1.0], [2.0, 3.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    assert gr.metrics.Accuracy()(logits, wanted) == 0.5


@pytest.mark.parametrize("shape", [(9,), (13, 1), (5, 4)])
def test_mae_and_r2_against_loops(shape):
    predictions, wanted = RNG.standard_normal(shape), RNG.standard_normal(shape)
    pairs = list(zip(predictions.ravel(), wanted.ravel(), strict=True))
    assert gr.metrics.MAE()(predictions, wanted) == pytest.approx(sum(abs(p - t) for p, t in pairs) / len(pairs))
    columns = []
    for p, t in zip(predictions.reshape(shape[0], -1).T, wanted.reshape(shape[0], -1).T, strict=True):
        mean = sum(t) / len(t)
        columns.append(1 - sum((a - b) ** 2 for a, b in zip(p, t, strict=True)) / sum((b - mean) ** 2 for b in t))
    assert gr.metrics.R2()(predictions, wanted) == pytest.approx(sum(columns) / len(columns))


def test_edges():
    assert math.isnan(gr.metrics.R2()(np.ones(3), np.ones(3)))
    assert gr.metrics.TopK(1)(np.array([[math.nan, 1.0]]), np.array([0])) == 0.0
    for metric in (gr.metrics.MAE(), gr.metrics.R2()):
        with pytest.raises(ValueError, match=rf"\[{type(metric).__name__}\] predictions are \(3, 1\), targets \(3,\)"):
            metric(np.ones((3, 1)), np.ones(3))
    with pytest.raises(ValueError, match=r"\[TopK\] k must be an int of at least 1, got 0"):
        gr.metrics.TopK(0)


X = RNG.standard_normal((45, 5)).astype(np.float32)
Y = RNG.standard_normal((45, 2)).astype(np.float32)
LABELS = RNG.integers(0, 2, 45)


def trainer(loss="mse", **options):
    model = gr.nn.Sequential(gr.nn.Linear(5, 6), gr.nn.Tanh(), gr.nn.Dropout(0.2), gr.nn.Linear(6, 2)).init(3)
    return gr.Trainer(model, loss=loss, optimizer=gr.optim.SGD(0.05), **options)


class Batches:
    def __len__(self):
        return 3

    def __iter__(self):
        return iter([(X[i : i + 15], Y[i : i + 15]) for i in (0, 15, 30)])


def data(kind):
    return {
        "arrays": (X, Y),
        "loader": gr.Loader((X, Y), 15, transforms={0: [gr.transforms.Scale(1.0, 0.0)]}),
        "named": gr.Loader({"y": Y, "x": X}, 15),
        "batches": Batches(),
    }[kind]


def worst(predictions, targets):
    return np.abs(predictions - targets).max()


@pytest.mark.parametrize("kind", ["arrays", "loader", "named", "batches"])
def test_metrics_of_an_evaluation(kind):
    made = trainer(metrics=["mae", worst, gr.metrics.R2()])
    got = made.evaluate(data(kind))
    predictions = made.predict(X)
    assert list(got) == ["loss", "mae", "worst", "r2"]
    assert got["mae"] == pytest.approx(gr.metrics.MAE()(predictions, Y), rel=1e-5)
    assert got["worst"] == pytest.approx(worst(predictions, Y), rel=1e-5)
    assert got["loss"] == pytest.approx(trainer().evaluate(data(kind))["loss"], rel=1e-6)


@pytest.mark.parametrize("kind", ["arrays", "loader", "named", "batches"])
def test_an_epoch_with_metrics_trains_as_one_without(kind):
    plain, measured = trainer(), trainer(metrics=["mae", worst])
    size = 15 if kind == "arrays" else None
    without = plain.fit(data(kind), epochs=3, batch_size=size, verbose=False)
    history = measured.fit(data(kind), epochs=3, batch_size=size, validate=(X, Y), verbose=False)
    assert list(history.metrics) == [
        "epoch",
        "loss",
        "mae",
        "worst",
        "val_loss",
        "val_mae",
        "val_worst",
        "lr",
        "seconds",
    ]
    assert history.metrics["loss"] == pytest.approx(without.metrics["loss"], rel=1e-6)
    for name, array in plain.params.items():
        assert array.tobytes() == measured.params[name].tobytes()
    assert history.last["val_mae"] == pytest.approx(gr.metrics.MAE()(measured.predict(X), Y), rel=1e-5)


def test_the_predictions_of_an_epoch_are_those_that_each_batch_met():
    seen = []

    def keep(predictions, targets):
        seen.append((predictions.copy(), targets.copy()))
        return 0.0

    made, twin = trainer(metrics=[keep]), trainer()
    made.fit(Batches(), epochs=1, verbose=False)
    expected = []
    for x, y in Batches():
        expected.append(twin.predict(x))
        twin.step(x, y)
    (predictions, targets) = seen[0]
    assert predictions.tobytes() == np.concatenate(expected).tobytes() and targets.tobytes() == Y.tobytes()


def test_early_stop_and_resume_know_them(tmp_path):
    made = trainer(metrics=["mae"])
    stop = gr.callbacks.EarlyStop("val_mae", patience=2)
    made.fit(
        (X, Y), epochs=4, validate=(X, Y), callbacks=[stop, gr.callbacks.Checkpoint(tmp_path / "a")], verbose=False
    )
    again = trainer(metrics=["mae"])
    assert len(again.fit((X, Y), 6, validate=(X, Y), callbacks=[stop, gr.callbacks.Checkpoint(tmp_path / "a")],
                         resume=tmp_path / "a", verbose=False)) >= 4  # fmt: skip


def test_top_k_while_training():
    made = trainer("cross_entropy", metrics=["accuracy", gr.metrics.TopK(1)])
    row = made.fit((X, LABELS), epochs=1, verbose=False).last
    assert row["accuracy"] == pytest.approx(row["top1"], abs=0.5)
    got = made.evaluate((X, LABELS))
    assert got["accuracy"] == got["top1"]


@pytest.mark.parametrize(
    ("metrics", "error", "words"),
    [
        ([gr.metrics.MAE], TypeError, r"\[Trainer\] metrics: MAE is a class: did you forget the brackets\?"),
        ([3], TypeError, r"\[Trainer\] metrics: int is not callable with \(predictions, targets\)"),
        (["mae", gr.metrics.MAE()], ValueError, r"\[Trainer\] metrics: the name 'mae' is taken"),
        ([lambda p, t: 0.0, lambda p, t: 1.0], ValueError, r"\[Trainer\] metrics: the name 'lambda' is taken"),
        (3, ValueError, r"\[Trainer\] metrics must be a list of 'accuracy', 'mae', 'r2', .*, got 3"),
    ],
)
def test_what_is_no_metric(metrics, error, words):
    with pytest.raises(error, match=words):
        trainer(metrics=metrics)


def test_a_metric_that_fails_or_returns_an_array():
    with pytest.raises(TypeError, match=r"\[Trainer\] metric 'each' returned ndarray: must be a number"):
        trainer(metrics=[each]).evaluate((X, Y))
    words = r"\[Trainer\] metric 'lambda' raised ZeroDivisionError for {}: division by zero; predictions were \("
    with pytest.raises(gr.GradringError, match=words.format("epoch 1")) as caught:
        trainer(metrics=[lambda p, t: 1 / 0]).fit((X, Y), verbose=False)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(gr.GradringError, match=words.format("an evaluation")):
        trainer(metrics=[lambda p, t: 1 / 0]).evaluate([(X, Y)])


def each(predictions, targets):
    return predictions - targets
