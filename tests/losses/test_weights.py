"""Weights of samples and classes: sums over sums, for batches of any sizes; and errors that name what cannot be."""

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(21)
N, INPUTS, CLASSES = 61, 5, 3
X = RNG.standard_normal((N, INPUTS)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, N)
WEIGHT = RNG.random(N).astype(np.float32).astype(np.float64)
WEIGHT[::7] = 0
CLASS_WEIGHT = (0.5, 2.0, 3.0)
SOFT = RNG.random((N, CLASSES))
SOFT /= SOFT.sum(axis=1, keepdims=True)


def model(outputs=CLASSES):
    return gr.nn.Sequential(gr.nn.Linear(INPUTS, 7), gr.nn.Tanh(), gr.nn.Linear(7, outputs)).init(4, "float64")


def trainer(loss="cross_entropy", outputs=CLASSES, **options):
    options = {"optimizer": gr.optim.SGD(0.3), "dtype": "float64", **options}
    return gr.Trainer(model(outputs), loss=loss, **options)


def row_losses(outputs, y, loss):
    """The loss of each sample, and what it counts, in NumPy."""
    op = {
        "cross_entropy": gr.ops.softmax_cross_entropy,
        "binary_cross_entropy": gr.ops.binary_cross_entropy,
        "mse": gr.ops.mse,
        "mae": gr.ops.mae,
        "huber": gr.ops.huber,
    }[loss.kind]
    return op(outputs, y, reduction="sample")


KINDS = {
    "cross_entropy": LABELS,
    "mse": RNG.standard_normal((N, CLASSES)),
    "mae": RNG.standard_normal((N, CLASSES)),
    "huber": RNG.standard_normal((N, CLASSES)),
    "binary_cross_entropy": RNG.random((N, CLASSES)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 8, 61])
def test_an_evaluation_is_a_sum_over_a_sum(kind, batch):
    t, y = trainer(kind), KINDS[kind]
    losses = row_losses(t.predict(X), y, gr.losses.as_loss("t", kind))
    want = float((losses * WEIGHT).sum() / WEIGHT.sum())
    assert t.evaluate((X, y, WEIGHT), batch_size=batch)["loss"] == pytest.approx(want, rel=1e-12)
    parts = [(X[i : i + batch], y[i : i + batch], WEIGHT[i : i + batch]) for i in range(0, N, batch)]
    assert t.evaluate(parts)["loss"] == pytest.approx(want, rel=1e-12)
    named = {"weight": WEIGHT, "y": y, "x": X}
    assert t.evaluate(gr.Loader(named, batch))["loss"] == pytest.approx(want, rel=1e-12)
    assert t.evaluate((X, y))["loss"] == pytest.approx(float(losses.mean()), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_batches_are_as_one(kind):
    y = KINDS[kind]
    whole, parts = trainer(kind), trainer(kind, accumulate=4)
    want = whole.step(X, y, WEIGHT)
    sums = 0.0
    for begin, end in ((0, 3), (3, 4), (4, 40), (40, N)):
        sums += parts.step(X[begin:end], y[begin:end], WEIGHT[begin:end] + 1e-300) * WEIGHT[begin:end].sum()
    assert sums / WEIGHT.sum() == pytest.approx(want, rel=1e-6)
    for name, array in whole.params.items():
        np.testing.assert_allclose(array, parts.params[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_weight_counts_as_so_many_copies(accumulate, clip_norm):
    counts = RNG.integers(0, 3, N)
    copies = np.repeat(np.arange(N), counts)
    weighted = trainer(accumulate=accumulate, clip_norm=clip_norm)
    repeated = trainer(accumulate=accumulate, clip_norm=clip_norm)
    for _ in range(2 * accumulate):
        a = weighted.step(X, LABELS, counts)
        b = repeated.step(X[copies], LABELS[copies])
        assert a == pytest.approx(b, rel=1e-10)
    for name, array in weighted.params.items():
        np.testing.assert_allclose(array, repeated.params[name], rtol=1e-8, atol=1e-12)


def test_weights_of_one_change_no_bit():
    plain, weighted = trainer(dtype="float32"), trainer(dtype="float32")
    ones = np.ones(N, np.float32)
    for _ in range(5):
        assert plain.step(X, LABELS) == weighted.step(X, LABELS, ones)
    for name, array in plain.params.items():
        np.testing.assert_allclose(array, weighted.params[name], rtol=2e-6)


def test_steps_with_weights_are_the_same_by_every_way_to_give_them():
    results = []
    for give in (
        lambda t: t.step(X, LABELS, WEIGHT),
        lambda t: t.step(X, LABELS, weight=WEIGHT),
        lambda t: t.step({"weight": WEIGHT, "y": LABELS, "x": X}),
        lambda t: t.step(X, LABELS, WEIGHT.reshape(-1, 1)),
        lambda t: t.fit((X, LABELS, WEIGHT), batch_size=N, verbose=False).last["loss"],
        lambda t: t.fit({"y": LABELS, "weight": WEIGHT, "x": X}, batch_size=N, verbose=False).last["loss"],
        lambda t: t.fit(gr.Loader({"weight": WEIGHT, "x": X, "y": LABELS}, N), verbose=False).last["loss"],
        lambda t: t.fit([(X, LABELS, WEIGHT)], verbose=False).last["loss"],
    ):
        t = trainer()
        give(t)  # of the same order: shuffled rows add up in another one
        results.append([give(t), t.step(X, LABELS, WEIGHT)])
    np.testing.assert_allclose(results, [results[0]] * len(results), rtol=1e-9)


def test_weighted_training_and_plain_validation_take_turns():
    t = trainer()
    history = t.fit((X, LABELS, WEIGHT), epochs=3, batch_size=16, validate=(X, LABELS), verbose=False)
    assert history.last["val_loss"] == pytest.approx(t.evaluate((X, LABELS))["loss"], rel=1e-12)
    other = gr.Loader({"weight": WEIGHT, "x": X, "y": LABELS}, 16)
    with_weights = t.evaluate(other)["loss"]
    assert t.evaluate((X, LABELS, WEIGHT))["loss"] == pytest.approx(with_weights, rel=1e-12)
    assert t.evaluate((X, LABELS))["loss"] == history.last["val_loss"]
    assert np.isfinite(t.step(X, LABELS)) and np.isfinite(t.step(X, LABELS, WEIGHT))
    assert "sample_weight" in str(t.plan())


def test_a_callback_may_take_plain_steps_between_weighted_ones():
    class Steps(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            t.step(X[:9], LABELS[:9])

    t = trainer(accumulate=4)
    t.fit((X, LABELS, WEIGHT), epochs=2, batch_size=9, callbacks=[Steps()], verbose=False)
    assert all(np.isfinite(array).all() for array in t.params.values())


def test_the_bits_do_not_depend_on_threads():
    x, y = np.tile(X, (20, 1)), np.tile(LABELS, 20)
    w = np.tile(WEIGHT, 20)
    params = []
    for threads in (1, 2):
        loss = gr.losses.CrossEntropy(weight=CLASS_WEIGHT, label_smoothing=0.1)
        t = trainer(loss, dtype="float32", threads=threads)
        t.fit((x, y, w), epochs=2, batch_size=500, verbose=False)
        params.append(b"".join(array.tobytes() for array in t.params.values()))
    assert params[0] == params[1]


def test_a_batch_without_weight_changes_nothing_but_counts():
    weight = np.r_[np.zeros(10), np.ones(N - 10)]
    t = trainer()
    history = t.fit(gr.Loader((X, LABELS, weight), 10), verbose=False)  # its first batch has no weight
    other = trainer()
    assert history.last["loss"] == other.fit(gr.Loader((X[10:], LABELS[10:]), 10), verbose=False).last["loss"]
    for name, array in t.params.items():
        np.testing.assert_allclose(array, other.params[name], rtol=1e-12)


@pytest.mark.parametrize("given", [dict(enumerate(CLASS_WEIGHT)), CLASS_WEIGHT, np.array(CLASS_WEIGHT, np.float32)])
def test_class_weights_weigh_the_samples_of_a_class(given):
    weighed, by_sample = trainer(class_weight=given), trainer()
    each = np.array(CLASS_WEIGHT)[LABELS]
    for _ in range(3):
        assert weighed.step(X, LABELS) == pytest.approx(by_sample.step(X, LABELS, each), rel=1e-10)
        both = weighed.step(X, LABELS, WEIGHT)
        assert both == pytest.approx(by_sample.step(X, LABELS, WEIGHT * each), rel=1e-7)
    assert weighed.evaluate((X, LABELS))["loss"] == pytest.approx(by_sample.evaluate((X, LABELS, each))["loss"])


def test_classes_that_a_dict_does_not_name_count_once():
    a, b = trainer(class_weight={2: 5.0}), trainer(class_weight=[1, 1, 5])
    assert a.step(X, LABELS) == b.step(X, LABELS)


def test_balanced_counts_the_labels_of_each_fit():
    labels = np.r_[np.zeros(40, int), np.ones(15, int), np.full(6, 2)]
    t = trainer(class_weight="balanced")
    with pytest.raises(ValueError, match="'balanced' is settled by the labels that fit is given: call fit first"):
        t.step(X, labels)
    with pytest.raises(ValueError, match="call fit first"):
        t.evaluate((X, labels))
    want = trainer(class_weight=N / (3 * np.bincount(labels)))
    a = t.fit((X, labels), epochs=2, batch_size=16, verbose=False).last["loss"]
    assert a == want.fit((X, labels), epochs=2, batch_size=16, verbose=False).last["loss"]
    assert t.step(X, labels) == want.step(X, labels)
    turned = 2 - labels
    t.fit((X, turned), verbose=False)
    assert t.evaluate((X, turned))["loss"] != t.evaluate((X, labels))["loss"]


def test_balanced_and_one_output():
    y = (np.arange(N) % 4 == 0).astype(np.float64).reshape(-1, 1)
    t = trainer("binary_cross_entropy", 1, class_weight="balanced")
    share = y.mean()
    by_sample = trainer("binary_cross_entropy", 1)
    each = np.where(y[:, 0] == 1, 0.5 / share, 0.5 / (1 - share))
    t.fit((X, y), batch_size=N, verbose=False)
    by_sample.fit((X, y, each), batch_size=N, verbose=False)
    assert t.step(X, y) == pytest.approx(by_sample.step(X, y, each), rel=1e-9)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.where(np.arange(N) == 5, -1.0, 1.0), r"weight of sample 5 is -1\.0: must be finite and at least 0"),
        (np.where(np.arange(N) == 6, np.nan, 1.0), r"weight of sample 6 is nan"),
        (np.where(np.arange(N) == 7, np.inf, 1.0), r"weight of sample 7 is inf"),
        (np.ones(N - 1), rf"x has {N} samples, weight has {N - 1}: must be equal"),
        (np.ones((N, 2)), r"weight is \(61, 2\): must be \(samples,\)"),
        (np.zeros(N), rf"weight: all {N} weights are zero, so there is nothing to learn"),
    ],
)
@pytest.mark.parametrize("way", ["step", "fit", "evaluate"])
def test_weights_that_cannot_be(weight, words, way):
    t = trainer()
    t.step(X, LABELS, WEIGHT)  # so that the next may take the fast path
    before = t.params["0.weight"].copy()
    call = {
        "step": lambda: t.step(X, LABELS, weight),
        "fit": lambda: t.fit((X, LABELS, weight), verbose=False),
        "evaluate": lambda: t.evaluate((X, LABELS, weight)),
    }[way]
    with pytest.raises(ValueError, match=words):
        call()
    np.testing.assert_array_equal(t.params["0.weight"], before)
    assert np.isfinite(t.step(X, LABELS, WEIGHT))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_bad_weight_in_a_loader_is_found_before_the_update(bad):
    weight = np.where(np.arange(N) == 33, bad, 1.0)

    def sample(i):
        return X[i], LABELS[i], weight[i]

    t = trainer()
    loader = gr.Loader(gr.sources.Callable(sample, N, workers="threads"), 10)
    with pytest.raises(ValueError, match=r"batch 3, row 3 \(sample 33\): the weight is negative, infinite or NaN"):
        t.fit(loader, verbose=False)
    loader.close()
    zeros = gr.Loader(gr.sources.Callable(lambda i: (X[i], LABELS[i], np.float32(0)), N, workers="threads"), 10)
    with pytest.raises(ValueError, match=rf"all {N} weights are zero"):
        t.fit(zeros, verbose=False)
    zeros.close()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"loss": gr.losses.CrossEntropy(weight=CLASS_WEIGHT), "class_weight": {0: 2.0}},
            ValueError,
            r"class_weight and CrossEntropy\(weight=\) are both given",
        ),
        (
            {"loss": "mse", "class_weight": {0: 2.0}},
            TypeError,
            "goes with binary_cross_entropy and cross_entropy, and",
        ),
        (
            {"loss": "mse", "class_weight": "balanced"},
            TypeError,
            "goes with binary_cross_entropy and cross_entropy, and",
        ),
        ({"class_weight": {0: -1.0}}, ValueError, "the weight of class 0 must be .* at least 0, got -1.0"),
        ({"class_weight": {-1: 1.0}}, ValueError, "a label must be an int of at least 0, got -1"),
        ({"class_weight": {"cat": 1.0}}, TypeError, "a label must be an int of at least 0, got 'cat'"),
        ({"class_weight": {}}, ValueError, "class_weight is an empty dict"),
        ({"class_weight": [1.0, np.nan, 1.0]}, ValueError, "number 1 is nan"),
        ({"class_weight": [0, 0, 0]}, ValueError, "all are zero"),
        ({"class_weight": "even"}, ValueError, "class_weight must be 'balanced', got 'even'; a dict or an array"),
    ],
)
def test_class_weights_that_cannot_be(options, error, words):
    with pytest.raises(error, match=words):
        trainer(**options)


@pytest.mark.parametrize(
    ("options", "y", "words"),
    [
        ({"class_weight": {3: 2.0}}, LABELS, r"class_weight has class 3, and the model has 3 outputs: .* 0 to 2"),
        ({"class_weight": [1.0, 2.0]}, LABELS, r"weights for 2 classes, and the model has 3 outputs"),
        (
            {"loss": "binary_cross_entropy", "class_weight": [1.0, 2.0]},
            KINDS["binary_cross_entropy"],
            r"3 labels for each sample, .*pos_weight",
        ),
        (
            {"loss": gr.losses.BinaryCrossEntropy(pos_weight=[1.0, 2.0])},
            KINDS["binary_cross_entropy"],
            r"pos_weight has 2 numbers, and the model gives 3 labels",
        ),
    ],
)
def test_weights_for_other_outputs_are_found_at_planning(options, y, words):
    with pytest.raises(ValueError, match=words):
        trainer(**options).step(X, y)


def test_balanced_needs_labels_of_every_class_in_memory():
    t = trainer(class_weight="balanced")
    with pytest.raises(ValueError, match=r"'balanced': class 2 of 3 has no sample in the training data"):
        t.fit((X, LABELS % 2), verbose=False)
    with pytest.raises(ValueError, match=r"do not lie in memory as arrays, or in files: give class_weight as a dict"):
        t.fit([(X, LABELS)], verbose=False)
    loader = gr.Loader(gr.sources.Callable(lambda i: (X[i], LABELS[i]), N, workers="threads"), 10)
    with pytest.raises(ValueError, match=r"do not lie in memory"):
        t.fit(loader, verbose=False)
    loader.close()


def test_a_step_of_ones_own_takes_no_class_weight():
    with pytest.raises(TypeError, match=r"class_weight goes with a model"):
        gr.Trainer(step=lambda p, b: (0.0, {}), params={"w": np.zeros(3)}, class_weight={0: 1.0})


def test_an_input_cannot_be_called_as_the_weights_are():
    class Weighted(gr.nn.Layer):
        input_names = ("weight",)

        def trace(self, tracer, x):
            return x

    with pytest.raises(ValueError, match="'weight' that of the samples' weights"):
        gr.Trainer(Weighted())


@pytest.mark.parametrize("targets", [LABELS, SOFT])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_sum_is_not_divided(targets, reduction):
    loss = gr.losses.CrossEntropy(reduction=reduction)
    t = trainer(loss, optimizer=gr.optim.SGD(0.01))
    each = gr.ops.softmax_cross_entropy(t.predict(X), targets)
    want = float(each.sum() if reduction == "sum" else each.mean())
    assert t.evaluate((X, targets), batch_size=7)["loss"] == pytest.approx(want, rel=1e-12)
    other = trainer(loss, optimizer=gr.optim.SGD(0.01), accumulate=2)
    assert t.step(X, targets) == pytest.approx(want, rel=1e-12)
    half = other.step(X[:30], targets[:30]) + other.step(X[30:], targets[30:])
    if reduction == "sum":
        assert half == pytest.approx(want, rel=1e-12)
    for name, array in t.params.items():
        np.testing.assert_allclose(array, other.params[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        (SOFT[:, :2], ValueError, r"y is \(61, 2\), the model gives \(61, 3\)"),
        (np.eye(3, dtype=int)[LABELS], ValueError, r"one-hot rows, y.argmax\(axis=1\) makes labels"),
        (LABELS.astype(np.float32), TypeError, r"probabilities have the shape \(batch, classes\)"),
        (SOFT * 2 - 1, ValueError, r"the target is no distribution: probabilities are from 0 to 1"),
    ],
)
def test_soft_targets_that_cannot_be(y, error, words):
    with pytest.raises(error, match=words):
        trainer().step(X, y)


def test_one_hot_rows_are_labels():
    soft, hard = trainer(), trainer()
    rows = np.eye(CLASSES)[LABELS]
    for _ in range(3):
        assert soft.step(X, rows) == pytest.approx(hard.step(X, LABELS), rel=1e-12)
    assert soft.evaluate((X, rows)) == pytest.approx(hard.evaluate((X, LABELS)))


def test_balanced_counts_labels_that_changed_in_place():
    labels = np.r_[np.zeros(40, int), np.ones(15, int), np.full(6, 2)]
    a, b = trainer(class_weight="balanced"), trainer(class_weight="balanced")
    a.fit((X, labels), epochs=1, batch_size=16, verbose=False)
    b.fit((X, labels.copy()), epochs=1, batch_size=16, verbose=False)
    labels[:] = 2 - labels
    options = {"epochs": 1, "batch_size": 16, "verbose": False}
    assert a.fit((X, labels), **options).last["loss"] == b.fit((X, labels.copy()), **options).last["loss"]
