"""gr.sklearn: scikit-learn's own checks of estimators, and tests of what they do not cover."""

import copy
import pickle

import numpy as np
import pytest

import gradring as gr

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from gradring.sklearn import Classifier, Regressor  # noqa: E402

# Every check that scikit-learn has for such estimators passes but one; those of array APIs run only where SCIPY_ARRAY_API
# is set.
EXCEPTIONS = {
    "check_sample_weight_equivalence_on_dense_data": "mini-batches of repeated samples are not those of weighted ones",
}


@parametrize_with_checks(
    [Classifier(), Regressor(), Classifier(early_stopping=True, hidden=()), Regressor(dtype="float64")],
    expected_failed_checks=lambda estimator: EXCEPTIONS,
)
def test_the_checks_of_scikit_learn_itself(estimator, check):
    assert isinstance(estimator, Classifier | Regressor)
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 300)
    return rng.standard_normal((300, 5)) + 3 * np.eye(3, 5)[y], y


LABELS = {
    "texts": np.array(["red", "green", "blue"]),
    "objects": np.array(["red", "green", "blue"], object),
    "from one": np.array([1, 2, 3]),
    "far": np.array([-7, 10**12, 5]),
    "floats": np.array([0.0, 2.0, 5.0]),
    "bytes": np.array([3, 255, 0], np.uint8),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(blobs, kind):
    x, y = blobs
    labels = LABELS[kind][y]
    clf = Classifier(hidden=(16,), epochs=20, random_state=0).fit(x, labels)
    assert clf.classes_.tolist() == sorted(LABELS[kind].tolist()) and clf.score(x, labels) > 0.9
    assert clf.predict(x).dtype == labels.dtype
    shares = clf.predict_proba(x)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_array_equal(clf.classes_[shares.argmax(axis=1)], clf.predict(x))
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(x)), shares)


def test_two_bools_and_one_class(blobs):
    x, y = blobs
    clf = Classifier(epochs=20, random_state=0).fit(x, y == 1)
    assert clf.predict(x).dtype == bool and clf.score(x, y == 1) > 0.9
    one = Classifier(epochs=2).fit(x, np.full(300, "all"))
    assert set(one.predict(x)) == {"all"} and np.array_equal(one.predict_proba(x), np.ones((300, 1)))
    assert np.array_equal(one.predict_log_proba(x), np.zeros((300, 1)))


def test_data_frames_keep_their_names(blobs):
    pandas = pytest.importorskip("pandas")
    x, y = blobs
    frame = pandas.DataFrame(x, columns=list("abcde"))
    labels = pandas.Series(y).map({0: "p", 1: "q", 2: "r"}).astype("category")
    clf = Classifier(epochs=10, random_state=0).fit(frame, labels)
    assert clf.feature_names_in_.tolist() == list("abcde") and clf.score(frame, labels) > 0.8
    with pytest.raises(ValueError, match=r"feature names should match"):
        clf.predict(frame[list("edcba")])


@pytest.mark.parametrize("estimator", [Classifier, Regressor])
def test_a_pickle_and_a_copy_predict_and_go_on_alike(blobs, estimator):
    x, y = blobs
    first = {"classes": [0, 1, 2]} if estimator is Classifier else {}
    one = estimator(hidden=(8,), dropout=0.2, random_state=1).partial_fit(x, y, **first)
    others = [pickle.loads(pickle.dumps(one)), copy.deepcopy(one)]
    for part in range(3):
        rows = slice(100 * part, 100 * part + 100)
        one.partial_fit(x[rows], y[rows])
        for other in others:
            other.partial_fit(x[rows], y[rows])
    for other in others:
        np.testing.assert_array_equal(other.predict(x), one.predict(x))
    assert one.n_epochs_ == 4


def test_a_clone_has_the_options_alone(blobs):
    clf = Classifier(hidden=(8,), epochs=2, lr=0.5, optimizer=gr.optim.SGD(0.1)).fit(*blobs)
    other = clone(clf)
    assert other.get_params().keys() == clf.get_params().keys() and not hasattr(other, "classes_")
    assert other.hidden == (8,) and other.lr == 0.5


def test_the_state_decides_everything(blobs):
    x, y = blobs
    runs = [Classifier(hidden=(8,), dropout=0.5, epochs=3, random_state=seed).fit(x, y) for seed in (1, 1, 2)]
    assert np.array_equal(runs[0].predict_proba(x), runs[1].predict_proba(x))
    assert not np.array_equal(runs[0].predict_proba(x), runs[2].predict_proba(x))
    shared = np.random.RandomState(0)
    two = [Classifier(hidden=(8,), epochs=1, random_state=shared).fit(x, y) for _ in range(2)]
    assert not np.array_equal(two[0].predict_proba(x), two[1].predict_proba(x))


def test_searches_pipelines_and_folds(blobs):
    x, y = blobs
    search = GridSearchCV(Classifier(epochs=5, random_state=0), {"hidden": [(4,), (16, 8)], "lr": [1e-4, 1e-2]}, cv=3)
    search.fit(x, np.array(["a", "b", "c"])[y])
    assert search.best_params_["lr"] == 1e-2 and search.best_score_ > 0.8
    scores = cross_val_score(make_pipeline(StandardScaler(), Regressor(epochs=60, random_state=0)), x, x[:, 0] * 50 - 3)
    assert scores.min() > 0.9


def test_early_stopping_keeps_the_best_weights():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((120, 30)), rng.integers(0, 2, 120)  # noise: it can only be learned by heart
    clf = Classifier(epochs=400, lr=0.02, early_stopping=True, n_iter_no_change=3, random_state=0).fit(x, y)
    losses = clf.history_.metrics["val_loss"]
    assert len(losses) == np.argmin(losses) + 4 < 400 and clf.n_epochs_ == len(losses)
    _, kept = clf._parts(y)
    found = -clf.predict_log_proba(x[kept])[np.arange(len(kept)), y[kept]].mean()
    np.testing.assert_allclose(found, min(losses), rtol=1e-5)
    assert "val_loss" not in Classifier(epochs=1).fit(x, y).history_.metrics
    for options, words in [
        ({"validation_fraction": 1.5}, r"validation_fraction must be a finite number above 0 and below 1"),
        ({"n_iter_no_change": 0}, r"n_iter_no_change must be an int of at least 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            Classifier(early_stopping=True, **options).fit(x, y)
    with pytest.raises(ValueError, match=r"early_stopping needs samples for both training and validation: n_samples=1"):
        Regressor(early_stopping=True).fit(x[:1], y[:1])


@pytest.mark.parametrize("shape", [(200,), (200, 1), (200, 3)])
def test_numbers_come_in_their_own_units(shape):
    x = np.random.default_rng(0).standard_normal((200, 4)) * [1, 1e4, 1, 1e-4]
    y = (x[:, :1] + np.arange(shape[1] if len(shape) == 2 else 1)).reshape(shape) * 1e6 - 3e6
    reg = Regressor(epochs=60, random_state=0).fit(x, y)
    assert reg.predict(x).shape == shape and reg.score(x, y) > 0.9
    constant = Regressor(epochs=30, random_state=0).fit(x, np.full(200, 7.0))
    assert np.abs(constant.predict(x) - 7).max() < 1


@pytest.mark.parametrize("kind", [Classifier, Regressor])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_weight_is_so_many_samples(blobs, kind, method):
    x, y = blobs
    counts = np.random.default_rng(1).integers(0, 4, len(x))
    again = np.repeat(np.arange(len(x)), counts)
    wrong = np.where(counts > 0, y, 2 - y)  # of samples that count for nothing

    def trained(x, y, **weights):
        # One batch has all samples, so that it has the same ones.
        made = kind(hidden=(8,), epochs=30, batch_size=2000, random_state=0, dtype="float64")
        more = {"classes": [0, 1, 2]} if (kind, method) == (Classifier, "partial_fit") else {}
        for _ in range(1 if method == "fit" else 3):
            getattr(made, method)(x, y, **more, **weights)
        return made.predict_proba(blobs[0]) if kind is Classifier else made.predict(blobs[0])

    want = trained(x[again], y[again])
    np.testing.assert_allclose(trained(x, wrong, sample_weight=counts), want, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(trained(x, wrong, sample_weight=0.25 * counts), want, rtol=1e-6, atol=1e-9)
    assert np.abs(trained(x, y) - want).max() > 1e-4


@pytest.mark.parametrize("names", [np.array(["red", "green", "blue"]), np.array([7, -1, 10**12])])
def test_class_weights_are_weights_of_samples(blobs, names):
    x, y = blobs[0], names[blobs[1]]
    kept = np.concatenate([np.flatnonzero(y == name)[:count] for name, count in zip(names, (20, 60, 90), strict=True)])
    x, y = x[kept], y[kept]
    factors = {names[0]: 3.0, names[2]: 0.5}

    def trained(class_weight=None, **weights):
        made = Classifier(hidden=(8,), epochs=15, random_state=0, batch_size=50, class_weight=class_weight)
        return made.fit(x, y, **weights).predict_proba(blobs[0])

    by_label = np.array([factors.get(label, 1.0) for label in y.tolist()])
    np.testing.assert_array_equal(trained(factors), trained(sample_weight=by_label))
    own = np.random.default_rng(3).random(len(y))
    np.testing.assert_array_equal(trained(factors, sample_weight=own), trained(sample_weight=own * by_label))
    share = np.array([len(y) / (3 * np.sum(y == label)) for label in y.tolist()])
    np.testing.assert_allclose(trained("balanced"), trained(sample_weight=share), rtol=1e-5)
    part = Classifier(hidden=(8,), random_state=0, class_weight=factors).partial_fit(x, y, classes=names)
    same = Classifier(hidden=(8,), random_state=0, batch_size=32).partial_fit(
        x, y, classes=names, sample_weight=by_label
    )
    np.testing.assert_array_equal(part.predict_proba(x), same.predict_proba(x))
    with pytest.raises(ValueError, match=r"class_weight='balanced' needs all labels at once: give a dict"):
        Classifier(class_weight="balanced").partial_fit(x, y, classes=names)


def test_a_class_of_weight_zero_is_still_a_class(blobs):
    clf = Classifier(hidden=(8,), epochs=30, random_state=0, class_weight={1: 0}, early_stopping=True).fit(*blobs)
    assert clf.classes_.tolist() == [0, 1, 2] and 1 not in clf.predict(blobs[0])


@pytest.mark.parametrize(("optimizer", "lr"), [("rmsprop", 3e-3), ("lion", 1e-3), ("sgd", 0.05), ("adam", 3e-3)])
def test_every_optimizer_by_name_learns(blobs, optimizer, lr):
    clf = Classifier(hidden=(16,), epochs=30, optimizer=optimizer, lr=lr, random_state=0).fit(*blobs)
    assert clf.score(*blobs) > 0.9
    assert type(clf._optimizer()).__name__.lower() == optimizer


def test_weights_in_the_validation(blobs):
    x, y = blobs
    weight = np.random.default_rng(2).random(len(x))
    clf = Classifier(hidden=(8,), epochs=20, early_stopping=True, n_iter_no_change=3, random_state=0)
    clf.fit(x, y, sample_weight=weight)
    _, kept = clf._parts(y)
    losses = -clf.predict_log_proba(x[kept])[np.arange(len(kept)), y[kept]]
    assert min(clf.history_.metrics["val_loss"]) == pytest.approx(np.average(losses, weights=weight[kept]), rel=1e-5)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (-np.ones(300), "Negative values"),
        (np.full(300, np.nan), "NaN"),
        (np.ones(299), "inconsistent|shape"),
        (np.zeros(300), "zero"),
        (np.ones((300, 2)), "1D"),
    ],
)
def test_bad_weights(blobs, weight, words):
    for estimator in (Classifier(epochs=1), Regressor(epochs=1)):
        with pytest.raises(ValueError, match=words):
            estimator.fit(*blobs, sample_weight=weight)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": (0,)}, r"\[Linear\] outputs must be an int of at least 1, got 0"),
        ({"activation": "step"}, r"\[Classifier\] activation must be 'relu'"),
        (
            {"optimizer": "lbfgs"},
            r"\[Classifier\] optimizer must be 'adamw', .* or 'lion', got 'lbfgs'; or give one of",
        ),
        ({"epochs": 0}, r"\[Classifier\] epochs must be an int of at least 1"),
        ({"batch_size": 0}, r"batch_size must be an int of at least 1"),
        ({"dropout": 1.5}, r"\[Classifier\] dropout must be a finite number"),
        ({"dtype": "float16"}, r"dtype must be 'float32' or 'float64'"),
        ({"lr": -1.0}, r"lr must be"),
        ({"class_weight": "equal"}, r"\[Classifier\] class_weight must be 'balanced', got 'equal'; or give a dict"),
        ({"class_weight": {3: 1.0}}, r"class_weight has the label 3, which is none of the classes \[0 1 2\]"),
        ({"class_weight": {1: -1.0}}, r"class_weight\[1\] must be a finite number of at least 0, got -1"),
        ({"class_weight": {1: np.nan}}, r"class_weight\[1\] must be a finite number"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, r"class_weight is zero for every label of y"),
    ],
)
def test_options_are_checked_in_fit(blobs, options, words):
    clf = Classifier(**options)
    with pytest.raises(ValueError, match=words):
        clf.fit(*blobs)


def test_parts_name_what_they_miss(blobs):
    x, y = blobs
    with pytest.raises(ValueError, match=r"classes must be passed on the first call"):
        Classifier().partial_fit(x, y)
    clf = Classifier().partial_fit(x, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"y has the label .*9, which is none of the classes"):
        clf.partial_fit(x, np.full(300, 9))
    with pytest.raises(ValueError, match=r"classes are .*, but were .* in an earlier call"):
        clf.partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"y has 2 numbers per sample, but had 1 before"):
        Regressor().partial_fit(x, y).partial_fit(x, np.stack([y, y], axis=1))


def test_a_first_call_that_failed_counts_for_nothing(blobs):
    x, y = blobs
    clf = Classifier(hidden=(8,), optimizer="adagrad", random_state=0)
    with pytest.raises(ValueError, match="optimizer"):
        clf.partial_fit(x, y, classes=[0, 1, 2, 3])
    with pytest.raises(sklearn.exceptions.NotFittedError):
        clf.predict(x)
    clf.set_params(optimizer="adamw").partial_fit(x[:, :4], y, classes=[0, 1, 2])
    want = Classifier(hidden=(8,), random_state=0).partial_fit(x[:, :4], y, classes=[0, 1, 2])
    np.testing.assert_array_equal(clf.predict_proba(x[:, :4]), want.predict_proba(x[:, :4]))
    reg = Regressor(hidden=(8,), optimizer="adagrad", random_state=0)
    with pytest.raises(ValueError, match="optimizer"):
        reg.partial_fit(x, 1e6 * y)
    reg.set_params(optimizer="adamw").partial_fit(x, y)
    assert reg.target_mean_ == pytest.approx([y.mean()])
