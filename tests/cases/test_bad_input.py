"""Bad input, item by item, through every entry point that takes it: an error that names the thing and the way out, and nothing
is changed."""

import numpy as np
import pytest

import gradring as gr
from cases.bad_input import RNG, N, X, Y, expect_refusal, own, trainer

REAL = RNG.standard_normal((N, 3)).astype(np.float32)
GOOD = np.linspace(0.5, 1.5, N).astype(np.float32)


# Weights of samples

WEIGHTS = {
    "negative": (np.where(np.arange(N) == 17, -0.5, GOOD), r"weight of sample 17 is -0\.5.*at least 0"),
    "NaN": (np.where(np.arange(N) == 17, np.nan, GOOD), r"weight of sample 17 is nan.*finite"),
    "infinite": (np.where(np.arange(N) == 17, np.inf, GOOD), r"weight of sample 17 is inf.*finite"),
    "shorter": (GOOD[:-1], r"x has 40 samples, weight has 39"),
    "longer": (np.ones(N + 3), r"x has 40 samples, weight has 43"),
    "all zero": (np.zeros(N, np.int64), r"all 40 weights are zero.*leave weight out"),
    "a number per output": (np.ones((N, 3)), r"weight is \(\d+, 3\): must be \(samples,\)"),
    "texts": (np.array(["heavy"] * N), r"weight.*must be numbers.*|field 2.*must be numbers"),
}
WITH_WEIGHTS = {
    "step": lambda t, w: t.step(X, Y, w),
    "step by name": lambda t, w: t.step(x=X, y=Y, weight=w),
    "fit": lambda t, w: t.fit((X, Y, w), verbose=False),
    "fit by name": lambda t, w: t.fit({"weight": w, "y": Y, "x": X}, verbose=False),
    "fit of one batch": lambda t, w: t.fit([(X, Y, w)], verbose=False),
    "evaluate": lambda t, w: t.evaluate((X, Y, w)),
    "evaluate by name": lambda t, w: t.evaluate({"x": X, "weight": w, "y": Y}),
    "evaluate of one batch": lambda t, w: t.evaluate([{"x": X, "weight": w, "y": Y}]),
    "validate": lambda t, w: t.fit((X, Y), validate=(X, Y, w), epochs=0, verbose=False),
}


@pytest.mark.parametrize("way", WITH_WEIGHTS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights_of_samples(weight, way):
    given, words = WEIGHTS[weight]
    made = trainer()
    late = (weight, way) == ("all zero", "fit of one batch")  # one batch of many may have no weight
    expect_refusal(lambda: WITH_WEIGHTS[way](made, given), words, None if late else made)


@pytest.mark.parametrize("way", ["fit", "evaluate"])
@pytest.mark.parametrize("weight", [name for name in WEIGHTS if name not in ("shorter", "longer", "texts")])
def test_weights_of_samples_in_a_loader(weight, way):
    given, words = WEIGHTS[weight]
    made = trainer()
    loader = gr.Loader((X, Y, given), N)
    expect_refusal(lambda: made.fit(loader, verbose=False) if way == "fit" else made.evaluate(loader), words, made)


@pytest.mark.parametrize("weight", ["negative", "NaN", "infinite", "all zero"])
def test_weights_that_a_loader_makes_batch_by_batch(weight):
    given, _ = WEIGHTS[weight]
    made = trainer()
    loader = gr.Loader(gr.sources.Callable(lambda i: (X[i], Y[i], np.float32(given[i])), N), 16, num_threads=0)
    expect_refusal(lambda: made.fit(loader, verbose=False) if weight != "all zero" else made.evaluate(loader), "weight")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tiny", [1e-45, 1e-40, 5e-33])
def test_a_batch_whose_weights_are_too_small_to_divide_by(tiny, dtype):
    """The loss would be finite, and the gradients would not."""
    weights = np.where(np.arange(N) < 16, tiny, 1).astype(np.float32)
    data = (X.astype(dtype), Y, weights)
    one_by_one = gr.sources.Callable(lambda i: (data[0][i], Y[i], weights[i]), N)
    for given in (gr.Loader(data, 16), gr.Loader(one_by_one, 16, num_threads=0), [tuple(a[:16] for a in data)]):
        made = trainer(dtype=dtype)
        expect_refusal(lambda: made.fit(given, verbose=False), r"weight.* (1e-30|too small)", made)  # noqa: B023
    assert np.isfinite(trainer(dtype=dtype).step(X[:16].astype(dtype), Y[:16], np.full(16, 1e-29)))


@pytest.mark.parametrize("weight", ["negative", "NaN", "shorter", "all zero"])
def test_weights_of_an_estimator(weight):
    pytest.importorskip("sklearn")
    given = WEIGHTS[weight][0]
    for made, y in ((gr.sklearn.Classifier((4,), epochs=1), Y), (gr.sklearn.Regressor((4,), epochs=1), REAL)):
        for method in ("fit", "partial_fit"):
            more = {"classes": [0, 1, 2]} if method == "partial_fit" and y is Y else {}
            with pytest.raises(ValueError, match=r"(?i)weight"):
                getattr(made, method)(X, y, sample_weight=given, **more)
            assert not hasattr(made, "history_")


# Weights of classes

CLASSES = {
    "both": (
        lambda: trainer(loss=gr.losses.CrossEntropy(weight=[1, 2, 3]), class_weight={0: 2.0}),
        r"class_weight and CrossEntropy\(weight=\) are both given: leave one",
    ),
    "both, balanced": (
        lambda: trainer(loss=gr.losses.CrossEntropy(weight=[1, 2, 3]), class_weight="balanced"),
        r"class_weight and CrossEntropy\(weight=\) are both given",
    ),
    "both, of labels": (
        lambda: trainer(loss=gr.losses.BinaryCrossEntropy(pos_weight=2.0), class_weight={0: 2.0}),
        r"class_weight and BinaryCrossEntropy\(pos_weight=\) are both given",
    ),
    "an absent class": (
        lambda: trainer(class_weight={0: 1.0, 7: 2.0}).step(X, Y),
        r"\[Trainer\] class_weight has class 7.*from 0 to 2",
    ),
    "too few": (
        lambda: trainer(class_weight=[1.0, 2.0]).fit((X, Y), verbose=False),
        r"\[Trainer\] class_weight: there are weights for 2 classes, and the model has 3 outputs",
    ),
    "too many": (
        lambda: trainer(class_weight=np.ones(5)).step(X, Y),
        r"\[Trainer\] class_weight: there are weights for 5 classes",
    ),
    "too many in the loss": (
        lambda: trainer(loss=gr.losses.CrossEntropy(weight=np.ones(5))).evaluate((X, Y)),
        r"\[CrossEntropy\] weight: there are weights for 5 classes",
    ),
    "by name": (lambda: trainer(class_weight={"cat": 1.0}), r"class_weight: a label must be an int.*'cat'"),
    "negative": (lambda: trainer(class_weight={0: -1.0}), r"the weight of class 0 must be .*at least 0, got -1"),
    "NaN": (lambda: trainer(class_weight=[1.0, np.nan, 1.0]), r"class_weight: number 1 is nan"),
    "all zero": (lambda: trainer(class_weight=np.zeros(3)), r"class_weight: all are zero"),
    "hidden": (lambda: trainer(class_weight=np.ma.masked_less(np.arange(3.0), 1)), r"class_weight is a Masked.*filled"),
    "a number": (lambda: trainer(class_weight=2.0), r"class_weight must be a vector of numbers"),
    "a misspelt word": (lambda: trainer(class_weight="balance"), r"class_weight must be 'balanced'.*got 'balance'"),
    "of no classes": (
        lambda: trainer(loss="mse", class_weight={0: 2.0}),
        r"class_weight goes with .*the field 'weight'",
    ),
    "of a step": (lambda: own(class_weight={0: 2.0}), r"class_weight goes with a model.*leave class_weight out"),
    "balanced, absent": (
        lambda: trainer(class_weight="balanced").fit((X, Y % 2), verbose=False),
        r"'balanced': class 2 of 3 has no sample.*as a dict",
    ),
    "balanced, by a function": (
        lambda: trainer(class_weight="balanced").fit(
            gr.Loader(gr.sources.Callable(lambda i: (X[i], Y[i]), N), 8, num_threads=0), verbose=False
        ),
        r"'balanced' counts the labels.*do not lie in memory.*as a dict",
    ),
    "balanced, batches": (
        lambda: trainer(class_weight="balanced").fit([(X, Y)], verbose=False),
        r"'balanced' counts the labels.*as a dict",
    ),
    "balanced, a step alone": (lambda: trainer(class_weight="balanced").step(X, Y), r"'balanced' is settled by.*fit"),
    "balanced, evaluate": (lambda: trainer(class_weight="balanced").evaluate((X, Y)), r"'balanced' is settled by.*fit"),
}


@pytest.mark.parametrize("case", CLASSES)
def test_weights_of_classes(case):
    expect_refusal(*CLASSES[case])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cat": 1.0}, r"class_weight has the label 'cat', which is none of the classes"),
        ({0: -1.0}, r"class_weight\[0\] must be .*at least 0"),
        ({0: 0.0, 1: 0.0, 2: 0.0}, "zero for every label"),
        ("balance", "class_weight must be 'balanced'"),
    ],
)
def test_weights_of_classes_of_an_estimator(given, words):
    pytest.importorskip("sklearn")
    expect_refusal(lambda: gr.sklearn.Classifier((4,), epochs=1, class_weight=given).fit(X, Y), words)


# Groups and frozen parameters

MAKERS = {
    "a model": trainer,
    "a step": own,
    "another optimizer": lambda optimizer: setattr(trainer(), "optimizer", optimizer),
    "another optimizer of a step": lambda optimizer: setattr(own(), "optimizer", optimizer),
}  # fmt: skip
GROUPS = {
    "nothing": ([{"params": "*.bais", "lr": 1.0}], r"'\*\.bais' matches no parameter.*(did you mean|they are called)"),
    "a layer's name": ([{"params": "2", "lr": 1.0}], r"'2' matches no parameter: all of layer '2' is '2\.\*'"),
    "overlap": (
        [{"params": "0.*", "lr": 1.0}, {"params": "*.bias", "lr": 2.0}],
        r"parameter '0\.bias' is in two groups, groups\[0\] and groups\[1\]: choose patterns",
    ),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("case", GROUPS)
def test_groups(case, maker):
    groups, words = GROUPS[case]
    expect_refusal(lambda: MAKERS[maker](optimizer=gr.optim.SGD(0.1, groups=groups)), words)


@pytest.mark.parametrize("case", GROUPS)
def test_groups_of_an_estimator(case):
    pytest.importorskip("sklearn")
    groups, words = GROUPS[case]
    expect_refusal(lambda: gr.sklearn.Classifier((5,), optimizer=gr.optim.SGD(0.1, groups=groups), epochs=1).fit(X, Y), words)


@pytest.mark.parametrize("maker", ["a model", "a step"])
@pytest.mark.parametrize(
    ("frozen", "words"),
    [
        ("*", r"freezes all 4 parameters.*leave out the patterns"),
        (["0.*", "2.*"], r"freezes all 4 parameters"),
        (["0.wieght"], r"'0\.wieght' matches no parameter; did you mean '0\.weight'"),
        ([0], r"frozen must be patterns"),
        (3, r"frozen must be a pattern"),
    ],
)
def test_frozen(frozen, words, maker):
    expect_refusal(lambda: MAKERS[maker](frozen=frozen), words)


def test_a_group_of_which_all_is_frozen():
    optimizer = gr.optim.SGD(0.1, groups=[{"params": "0.*", "lr": 1.0}])
    expect_refusal(lambda: trainer(optimizer=optimizer, frozen="0.*"), r"all that it matches is frozen: leave the group out")


# Metrics and losses of one's own


def fails(predictions, targets):
    raise KeyError("missing")


METRICS = {
    "raises": (fails, r"metric 'fails' raised KeyError for .*: 'missing'; predictions were \(40, 3\)"),
    "an array": (lambda p, t: p - p, r"metric 'lambda' returned ndarray: must be a number"),
    "nothing": (lambda p, t: None, r"metric 'lambda' returned NoneType: must be a number"),
    "a pair": (lambda p, t: (1.0, 2.0), r"metric 'lambda' returned tuple: must be a number"),
}
MEASURED = {
    "fit": lambda t: t.fit((X, Y), verbose=False),
    "fit of batches": lambda t: t.fit([(X, Y)], verbose=False),
    "fit of a loader": lambda t: t.fit(gr.Loader((X, Y), 16), verbose=False),
    "evaluate": lambda t: t.evaluate((X, Y)),
    "evaluate of batches": lambda t: t.evaluate([(X[:30], Y[:30]), (X[30:], Y[30:])]),
}


@pytest.mark.parametrize("way", MEASURED)
@pytest.mark.parametrize("case", METRICS)
def test_metrics(case, way):
    metric, words = METRICS[case]
    made = trainer(metrics=[metric])
    expect_refusal(lambda: MEASURED[way](made), words)
    assert np.isfinite(made.step(X, Y))


LOSSES = {
    "vjp, transposed": (lambda p, t: (p - t).mean(1), lambda d, p, t: (d[:, None] * p).T, r"vjp returned \(3, \d+\): must be"),
    "vjp, one per sample": (lambda p, t: (p - t).mean(1), lambda d, p, t: d, r"vjp returned \(\d+,\): must be \(\d+, 3\)"),
    "vjp, nothing": (lambda p, t: (p - t).mean(1), lambda d, p, t: None, r"vjp returned \(\): must be \(\d+, 3\)"),
    "vjp, hidden": (
        lambda p, t: (p - t).mean(1),
        lambda d, p, t: np.ma.masked_less(p, 0),
        r"vjp returned no array.*hides values",
    ),
    "forward, a mean": (lambda p, t: (p - t).mean(), lambda d, p, t: p, r"forward returned \(\): must be .*taken for you"),
    "forward, texts": (lambda p, t: ["a"] * len(p), lambda d, p, t: p, r"forward returned <U1: must be real numbers"),
}  # fmt: skip


@pytest.mark.parametrize("way", ["step", "fit", "batches"])
@pytest.mark.parametrize("case", LOSSES)
def test_losses_of_ones_own(case, way):
    forward, vjp, words = LOSSES[case]
    made = trainer(loss=gr.losses.Function(forward, vjp))
    ways = {
        "step": lambda: made.step(X, REAL),
        "fit": lambda: made.fit((X, REAL), verbose=False),
        "batches": lambda: made.fit([(X, REAL)], verbose=False),
    }
    expect_refusal(ways[way], words, made)
