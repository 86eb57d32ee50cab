"""class_weight="balanced" over every source whose labels are known, in checkpoints, and where nothing has a weight."""

import numpy as np
import pytest

import gradring as gr
from gradring import checkpoint

N = 90
RNG = np.random.default_rng(8)
X = RNG.standard_normal((N, 4)).astype("f4")
Y = np.repeat([0, 1, 2], [60, 20, 10])[RNG.permutation(N)]
HALF = np.arange(N)[Y != 1][::-1]


def trainer(**options):
    return gr.Trainer(gr.nn.Linear(4, 3), optimizer=gr.optim.SGD(0.1), seed=4, threads=1, **options)


def npy(folder, name, array):
    np.save(folder / name, array)
    return str(folder / name)


def records():
    table = np.zeros(N, [("x", "f4", 4), ("y", "i8")])
    table["x"], table["y"] = X, Y
    return table


SOURCES = {
    "files": lambda f: gr.Loader((npy(f, "x.npy", X), npy(f, "y.npy", Y)), 8),
    "memory maps": lambda f: gr.Loader((X, np.load(npy(f, "y.npy", Y), mmap_mode="r")), 8),
    "by name": lambda f: gr.Loader({"y": Y, "x": X}, 8),
    "concat": lambda f: gr.Loader(gr.sources.Concat([(X[:50], Y[:50]), (X[50:], Y[50:])]), 8),
    "concat by name": lambda f: gr.Loader(gr.sources.Concat([{"y": Y[:5], "x": X[:5]}, {"x": X[5:], "y": Y[5:]}]), 8),
    "concat of labels": lambda f: gr.Loader((X, gr.sources.Concat([Y[:7], npy(f, "y.npy", Y[7:])])), 8),
    "records": lambda f: gr.Loader(records(), 8),
    "transforms": lambda f: gr.Loader((X, Y), 8, transforms={1: gr.transforms.Cast("int32")}),
    "a list": lambda f: gr.Loader((X, Y.tolist()), 8),
    "a dict with a list": lambda f: gr.Loader({"x": X, "y": Y.tolist()}, 8),
    "lists in parts": lambda f: gr.Loader(gr.sources.Concat([(X[:65], Y[:65].tolist()), (X[65:], Y[65:].tolist())]), 8),
    "a function of x": lambda f: gr.Loader((X, Y), 8, transforms={0: gr.transforms.Python(np.negative)}),
    "order": lambda f: gr.Loader((X, Y), 8, indices=range(N), drop_last=True),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_labels_are_counted_wherever_they_lie(tmp_path, kind):
    balanced, by_hand = trainer(class_weight="balanced"), trainer(class_weight=N / (3 * np.bincount(Y)))
    loader = SOURCES[kind](tmp_path)
    want = by_hand.fit(loader, 2, verbose=False).metrics["loss"]
    assert balanced.fit(loader, 2, verbose=False).metrics["loss"] == want


def test_a_part_counts_its_own_labels():
    part, rest = gr.Loader((X, Y), 8).split(0.5, seed=3)
    for loader in (part, rest, gr.Loader((X, Y), 8, indices=np.r_[0:N:2, 0:N:2])):
        counts = np.bincount(Y[loader.indices], minlength=3)
        a, b = trainer(class_weight="balanced"), trainer(class_weight=loader.samples / (3 * counts))
        assert a.fit(loader, verbose=False).metrics["loss"] == b.fit(loader, verbose=False).metrics["loss"]
    with pytest.raises(ValueError, match=r"'balanced': class 1 of 3 has no sample"):
        trainer(class_weight="balanced").fit(gr.Loader((X, Y), 8, indices=HALF), verbose=False)


@pytest.mark.parametrize("bad", [3, -1, 2**40])
@pytest.mark.parametrize("kind", ["arrays", "part", "concat"])
def test_a_label_that_is_no_class_is_named(kind, bad):
    y = Y.copy()
    y[70] = bad
    data = {
        "arrays": (X, y),
        "part": gr.Loader((X, y), 8, indices=np.arange(N)[::-1]),
        "concat": gr.Loader(gr.sources.Concat([(X[:65], y[:65]), (X[65:], y[65:])]), 8),
    }[kind]
    number = r"70 \(number 5 of part 1\)" if kind == "concat" else "70"
    with pytest.raises(
        ValueError, match=rf"'balanced' .* the label of sample {number} is {bad}, must be a whole number"
    ):
        trainer(class_weight="balanced").fit(data, verbose=False)


def test_other_targets_than_class_numbers():
    with pytest.raises(ValueError, match="the targets are probabilities"):
        trainer(class_weight="balanced").fit((X, np.eye(3, dtype="f4")[Y]), verbose=False)
    one = gr.Trainer(gr.nn.Linear(4, 1), loss="binary_cross_entropy", class_weight="balanced")
    for bad in (0.5, np.nan, -1.0):
        y = (Y == 1).astype("f4").reshape(-1, 1)
        y[12] = bad
        with pytest.raises(ValueError, match=rf"the label of sample 12 is {bad}, must be a whole number"):
            one.fit((X, y), verbose=False)


# In a checkpoint


def test_a_trainer_that_loads_a_file_has_its_class_weights(tmp_path):
    made = trainer(class_weight="balanced")
    made.fit((X, Y), verbose=False)
    made.save(tmp_path / "a")
    others = [trainer(class_weight="balanced") for _ in range(2)]
    others[0].load(tmp_path / "a")
    others[1].load_state_dict(made.state_dict())
    for other in others:
        assert other.evaluate((X, Y)) == made.evaluate((X, Y))
    want = made.step(X, Y)
    assert [other.step(X, Y) for other in others] == [want, want]
    without = trainer()
    without.load(tmp_path / "a")
    assert without.evaluate((X, Y)) == gr.Trainer(without.model).evaluate((X, Y))
    fresh = trainer(class_weight="balanced")
    fresh.load(tmp_path / "a", weights_only=True)
    with pytest.raises(ValueError, match="call fit first, load a file of a trainer that has"):
        fresh.evaluate((X, Y))


@pytest.mark.parametrize("text", ["[", "{}", '["a"]', "[-1, 1, 1]", "[0, 0, 0]", "[1e999, 1, 1]", "3", "[[1], [2]]"])
def test_class_weights_that_cannot_be(tmp_path, text):
    made = trainer(class_weight="balanced")
    made.fit((X, Y), verbose=False)
    made.save(tmp_path / "a")
    tensors, metadata = checkpoint.read(tmp_path / "a")
    checkpoint.write(tmp_path / "a", tensors, metadata | {"class_weights": text})
    other = trainer(class_weight="balanced")
    if text == "{}":
        other.load(tmp_path / "a")  # empty: none
        return
    with pytest.raises(gr.CheckpointCorrupt, match=r"a: the metadata do not fit"):
        other.load(tmp_path / "a")


# Where nothing has a weight


@pytest.mark.parametrize(
    "options",
    [{"class_weight": {0: 0.0}}, {"class_weight": [0, 1, 1]}, {"loss": gr.losses.CrossEntropy(weight=[0, 1, 1])}],
)
@pytest.mark.parametrize("kind", ["arrays", "loader", "batches"])
def test_samples_of_classes_without_weight(options, kind):
    x, y = X[:24], np.zeros(24, int)
    data = {"arrays": (x, y), "loader": gr.Loader({"x": x, "y": y}, 8), "batches": [(x[:8], y[:8])] * 3}[kind]
    for method in ("fit", "evaluate"):
        with pytest.raises(ValueError, match=r"class_weight: all 24 samples are of classes whose weight is zero"):
            getattr(trainer(**options), method)(data)
    made = trainer(**options)
    assert np.isfinite(made.fit((X, Y), batch_size=8, verbose=False).last["loss"])


# Losses of one's own


@pytest.mark.parametrize(
    ("forward", "vjp", "error", "words"),
    [
        (lambda p, t: (p - t)[:, 0] * 1j, None, TypeError, r"forward returned complex\d+: must be real numbers"),
        (lambda p, t: ["a"] * len(p), None, TypeError, r"forward returned <U1: must be real numbers"),
        (lambda p, t: [[1], [1, 2]], None, ValueError, r"forward returned no array of shape \(10,\)"),
        (lambda p, t: None, None, ValueError, r"forward returned \(\): must be \(10,\)"),
        (lambda p, t: (p - t).mean(), None, ValueError, r"forward returned \(\): must be \(10,\)"),
        (None, lambda d, p, t: p * 1j, TypeError, r"vjp returned complex\d+: must be real numbers"),
        (None, lambda d, p, t: d, ValueError, r"vjp returned \(10,\): must be \(10, 2\)"),
        (None, lambda d, p, t: (p, t), ValueError, r"vjp returned \(2, 10, 2\): must be \(10, 2\)"),
    ],
)
def test_what_a_loss_of_ones_own_may_return(forward, vjp, error, words):
    loss = gr.losses.Function(
        forward or (lambda p, t: ((p - t) ** 2).sum(1)), vjp or (lambda d, p, t: 2 * d[:, None] * (p - t))
    )
    made = gr.Trainer(gr.nn.Linear(4, 2), loss=loss, seed=1)
    before = made.params["weight"].copy()
    with pytest.raises(error, match=rf"\[losses.Function\] {words}"):
        made.step(X[:10], X[:10, :2])
    assert (made.params["weight"] == before).all()
