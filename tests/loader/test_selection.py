"""Some samples of a source: indices, split, folds; sources one after the other; random numbers of a sample."""

import random

import numpy as np
import pytest

import gradring as gr

from .functions import Numbered, Sample, drawn, drawn_from, in_processes, numbers

N = 60
X = np.arange(3 * N, dtype=np.float32).reshape(N, 3)
Y = np.arange(N)


def loader(source=None, batch_size=7, **options):
    return gr.Loader((X, Y) if source is None else source, batch_size, **options)


def files(folder):
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    return folder / "x.npy", folder / "y.npy"


def records():
    made = np.zeros(N, [("x", "f4", 3), ("y", "i8")])
    made["x"], made["y"] = X, Y
    return made


def row(i):
    return X[i], Y[i]


SOURCES = {
    "arrays": lambda folder: (X, Y),
    "files": files,
    "memory maps": lambda folder: tuple(np.load(path, mmap_mode="r") for path in files(folder)),
    "big-endian": lambda folder: (X.astype(">f4"), Y.astype(">i2")),
    "a dict": lambda folder: {"x": X, "y": Y},
    "records": lambda folder: records(),
    "a function": lambda folder: gr.sources.Callable(row, N),
    "a data set": lambda folder: Numbered(N),
}


def fields(batch):
    return tuple(batch[name] for name in ("x", "y")) if isinstance(batch, dict) else batch


def all_of(made):
    """All batches in one."""
    return tuple(np.concatenate(parts) for parts in zip(*map(fields, made), strict=True))


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_indices_of_every_source(kind, shuffle, tmp_path):
    source = SOURCES[kind](tmp_path)
    chosen = [5, 0, 59, 5, 30, 31, 7, 8]
    made = gr.Loader(source, 3, shuffle=shuffle, seed=4, indices=chosen)
    x, y = all_of(made)
    assert made.samples == 8 and len(made) == 3 and sorted(y) == sorted(chosen)
    np.testing.assert_array_equal(made.indices, chosen)
    made.set_epoch(0)
    np.testing.assert_array_equal(made.order(), y)
    if not shuffle:
        np.testing.assert_array_equal(y, chosen)
    np.testing.assert_array_equal(x[:, 0], y if kind == "a data set" else 3 * y)


@pytest.mark.parametrize(
    ("indices", "want"),
    [
        (slice(10, 40, 7), [10, 17, 24, 31, 38]),
        (slice(None, None, -20), [59, 39, 19]),
        (range(3, 6), [3, 4, 5]),
        (np.array([2, 1], np.uint8), [2, 1]),
        ((4, 3), [4, 3]),
        (np.flatnonzero(Y % 30 == 1), [1, 31]),
        (iter([6]), [6]),
        ({9: "a"}.keys(), [9]),
    ],
)
def test_indices_of_every_form(indices, want):
    assert all_of(loader(indices=indices))[1].tolist() == want


@pytest.mark.parametrize(
    ("indices", "error", "words"),
    [
        ([3, -1], ValueError, r"indices\[1\] is -1: the source has the samples 0 to 59; negative numbers do not count"),
        ([60], ValueError, r"indices\[0\] is 60: the source has the samples 0 to 59"),
        (np.array([2**63], np.uint64), ValueError, "is 9223372036854775808"),
        ([], ValueError, "indices are empty"),
        (slice(5, 5), ValueError, "indices are empty"),
        (Y < 5, TypeError, r"numpy\.flatnonzero\(mask\)"),
        ([0.0, 1.0], TypeError, "whole numbers of samples, got dtype float64"),
        (["a"], TypeError, "got dtype <U1"),
        ([[0, 1], [2, 3]], ValueError, r"one list of samples' numbers, got an array of shape \(2, 2\)"),
        (3, ValueError, r"got an array of shape \(\)"),
    ],
)
def test_bad_indices(indices, error, words):
    with pytest.raises(error, match=words):
        loader(indices=indices)


@pytest.mark.parametrize("share", [0.8, 0.5, 1 / 3, 0.02, [0.2, 0.3, 0.5], [0.1] * 10, (0.25, 0.25)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_parts_of_a_split(share, shuffle):
    parts = loader(drop_last=True, batch_size=1).split(share, seed=3, shuffle=shuffle)
    shares = [share, 1 - share] if isinstance(share, float) else share
    taken = np.concatenate([part.indices for part in parts])
    assert len(parts) == len(shares) and len(np.unique(taken)) == len(taken)
    for part, wanted in zip(parts, shares, strict=True):
        assert abs(part.samples - wanted * N) <= 1 and part.drop_last
        np.testing.assert_array_equal(np.sort(all_of(part)[1]), np.sort(part.indices))
    if abs(sum(shares) - 1) < 1e-9:
        assert len(taken) == N
    assert (taken.tolist() == list(range(len(taken)))) is not shuffle
    again = loader(batch_size=1).split(share, seed=3, shuffle=shuffle)
    np.testing.assert_array_equal(taken, np.concatenate([part.indices for part in again]))
    if shuffle:
        other = loader(batch_size=1).split(share, seed=4)
        assert taken.tolist() != np.concatenate([part.indices for part in other]).tolist()


@pytest.mark.parametrize("count", [2, 3, 7, N])
def test_folds(count):
    pairs = loader(shuffle=True).folds(count, seed=1)
    assert len(pairs) == count
    tests = np.concatenate([test.indices for _, test in pairs])
    np.testing.assert_array_equal(np.sort(tests), Y)
    for train, test in pairs:
        np.testing.assert_array_equal(np.sort(np.concatenate([train.indices, test.indices])), Y)
        assert abs(test.samples - N / count) < 1 and train.shuffle


@pytest.mark.parametrize(
    ("divide", "error", "words"),
    [
        (lambda made: made.split(0.001), ValueError, "part 0 is empty: 0.001 of 60 samples"),
        (lambda made: made.split(0.999), ValueError, "part 1 is empty"),
        (lambda made: made.split([0.5, 0.001, 0.4]), ValueError, "part 1 is empty"),
        (lambda made: made.split(0), ValueError, "above 0 and below 1"),
        (lambda made: made.split(1.0), ValueError, "above 0 and below 1"),
        (lambda made: made.split([0.7, 0.7]), ValueError, "add up to at most 1"),
        (lambda made: made.split(float("nan")), ValueError, "above 0 and below 1"),
        (lambda made: made.split("0.5"), TypeError, "share must be a number such as 0.8, or several, got '0.5'"),
        (lambda made: made.split([0.5, None]), TypeError, "share must be a number"),
        (lambda made: made.split(None), TypeError, "share must be a number"),
        (lambda made: made.split([]), ValueError, "above 0"),
        (lambda made: made.folds(61), ValueError, "61 folds of 60 samples: a fold would be empty"),
        (lambda made: made.folds(1), ValueError, "count"),
        (lambda made: made.folds("3"), TypeError, "count"),
        (lambda made: made.split(0.5, seed=-1), ValueError, "seed"),
    ],
)
def test_divisions_with_empty_parts(divide, error, words):
    with pytest.raises(error, match=words):
        divide(loader())


def test_parts_of_parts():
    train, test = loader().split(0.75, seed=1)
    inner, held = train.split(0.6, seed=2)
    np.testing.assert_array_equal(np.sort(np.concatenate([inner.indices, held.indices, test.indices])), Y)
    few = gr.Loader((X, Y), 4, indices=held.indices[:5])
    np.testing.assert_array_equal(all_of(few)[1], held.indices[:5])
    sub, rest = gr.Loader((X, Y), 4, indices=[50, 40, 30, 20]).split(0.5, shuffle=False)
    assert sub.indices.tolist() == [50, 40] and rest.indices.tolist() == [30, 20]


def test_a_part_of_a_huge_source_is_a_few_numbers():
    huge = gr.Loader(gr.sources.Callable(lambda i: np.int64(i), 2**50), 4, num_threads=0, shuffle=True)
    (train, test), (fold, held) = huge.split(0.9), huge.folds(5)[3]  # a list of 2**50 numbers would fit nowhere
    assert train.samples + test.samples == 2**50 == fold.samples + held.samples
    first = next(iter(test))
    assert len(set(first.tolist())) == 4 and (first >= 0).all() and (first < 2**50).all()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("source", ["arrays", "processes"])
def test_a_part_resumes_exactly(shuffle, source):
    def made():
        given = (X, Y) if source == "arrays" else in_processes(Sample(), N)
        return gr.Loader(given, 4, shuffle=shuffle, seed=9, num_threads=2).split(0.7, seed=5)[0]

    with made() as whole:
        want = [b[1].tolist() for _ in range(2) for b in whole]
    with made() as first:
        batches = iter(first)
        head = [next(batches)[1].tolist() for _ in range(5)]
        state = first.state_dict()
    assert all(isinstance(value, int) for value in state.values())
    with made() as second:
        second.load_state_dict(state)
        rest = [b[1].tolist() for _ in range(2) for b in second]
    assert head + rest == want


def test_the_state_of_other_samples_is_refused():
    one, two = loader(shuffle=True).split(0.5, seed=1)
    for other in (two, *loader(shuffle=True).split(0.5, seed=2), gr.Loader((X, Y), 7, shuffle=True, indices=range(30))):
        with pytest.raises(ValueError, match="30 other samples of the source"):
            other.load_state_dict(one.state_dict())
    again = loader(shuffle=True).split(0.5, seed=1)[0]
    again.load_state_dict(one.state_dict())
    old = {name: value for name, value in one.state_dict().items() if name != "indices"}
    again.load_state_dict(old)  # of a version that did not say


def test_a_split_over_ranks_and_workers():
    for rank in range(3):
        part = gr.Loader(in_processes(Sample(), N), 4, rank=rank, world_size=3, shuffle=True).split(0.5, seed=2)[1]
        same = gr.Loader((X, Y), 4, rank=rank, world_size=3, shuffle=True).split(0.5, seed=2)[1]
        with part:
            assert numbers(part) == [int(i) for _, y in same for i in y]


def test_random_transforms_do_not_depend_on_what_else_is_read():
    images = np.random.default_rng(0).random((N, 4, 5, 1)).astype(np.float32)
    flips = [gr.transforms.RandomFlip(layout="HWC"), gr.transforms.RandomCrop(3, 1, layout="HWC")]
    whole = next(iter(gr.Loader(images, N, transforms=flips, seed=3)))
    part = gr.Loader(images, 5, transforms=flips, seed=3, indices=[44, 2, 3, 17, 44])
    np.testing.assert_array_equal(next(iter(part)), whole[[44, 2, 3, 17, 44]])


@pytest.mark.parametrize("processes", [False, True])
def test_errors_name_the_number_that_the_source_has(processes):
    function = Sample("raise", at=41)
    source = in_processes(function, N) if processes else gr.sources.Callable(function, N)
    with gr.Loader(source, 4, indices=[3, 41, 5]) as made, pytest.raises(Exception) as raised:
        list(made)
    assert raised.value.sample_index == 41


def test_training_sees_its_part_alone():
    seen = set()

    def sample(i):
        seen.add(i)
        return X[i] / 90 - 1, i % 3

    def trained(parts, resume=None, epochs=3, callbacks=()):
        trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(3, 3)), optimizer=gr.optim.Adam(0.05))
        trainer.fit(parts[0], epochs, resume=resume, callbacks=callbacks, verbose=False)
        return trainer

    train, test = gr.Loader(gr.sources.Callable(sample, N), 8, shuffle=True).split(0.6, seed=6)
    seen.clear()
    made = trained((train, test))
    assert seen == set(train.indices.tolist()) and not seen & set(test.indices.tolist())
    arrays = gr.Loader((X / 90 - 1, Y % 3), 8, shuffle=True).split(0.6, seed=6)
    for name, array in trained(arrays).params.items():
        np.testing.assert_array_equal(made.params[name], array)
    assert set(made.evaluate(test)) == {"loss", "accuracy"} and made.predict(test).shape == (24, 3)
    np.testing.assert_array_equal(made.predict(arrays[1]), made.predict((X / 90 - 1)[test.indices]))


@pytest.mark.parametrize("order", ["arrays", "part", "data set", "batches"])
def test_fit_resumes_exactly_whatever_the_order(order, tmp_path):
    def data():
        inputs = X / 90 - 1
        if order == "arrays":
            return inputs, Y % 3
        if order == "part":
            return gr.Loader((inputs, Y % 3), 8, shuffle=True, seed=3).folds(4, seed=1)[2][0]
        if order == "data set":
            return gr.Loader(gr.sources.Callable(lambda i: (inputs[i], i % 3), N), 8, shuffle=True)
        return [(inputs[i : i + 8], Y[i : i + 8] % 3) for i in range(0, N, 8)]

    def trainer():
        layers = gr.nn.Linear(3, 8), gr.nn.Dropout(0.3), gr.nn.Linear(8, 3)
        return gr.Trainer(gr.nn.Sequential(*layers), optimizer=gr.optim.AdamW(1e-2))

    whole, cut, again = trainer(), trainer(), trainer()
    size = 8 if order == "arrays" else None
    whole.fit(data(), 4, steps_per_epoch=5, batch_size=size, verbose=False)
    cut.fit(data(), 2, steps_per_epoch=5, batch_size=size, verbose=False)
    cut.save(tmp_path / "m")
    again.fit(data(), 4, steps_per_epoch=5, batch_size=size, resume=tmp_path / "m", verbose=False)
    for name, array in whole.params.items():
        np.testing.assert_array_equal(again.params[name], array)
    assert again.history.metrics["loss"] == whole.history.metrics["loss"]


# One after the other


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_concat_of_every_source(kind, shuffle, tmp_path):
    parts = [SOURCES[kind](tmp_path) for _ in range(3)]
    x, y = all_of(gr.Loader(gr.sources.Concat(parts), 50, shuffle=shuffle))
    np.testing.assert_array_equal(np.sort(y), np.repeat(Y, 3))
    np.testing.assert_array_equal(x[:, 0], y if kind == "a data set" else 3 * y)
    if not shuffle:
        np.testing.assert_array_equal(y, np.tile(Y, 3))


def test_concat_as_a_field_and_within_itself(tmp_path):
    np.save(tmp_path / "a.npy", X[:10])
    np.save(tmp_path / "b.npy", X[10:11].astype(">f4"))
    np.asfortranarray(X[11:40]).tofile(tmp_path / "unused")
    shards = gr.sources.Concat([str(tmp_path / "a.npy"), tmp_path / "b.npy", np.asfortranarray(X[11:40]), X[40:40]])
    whole = gr.sources.Concat([shards, X[40:]])
    x, y = all_of(gr.Loader((whole, Y), 16, shuffle=True, transforms={0: gr.transforms.Scale(2.0)}))
    np.testing.assert_array_equal(x[:, 0], 6 * y)
    train, _ = gr.Loader({"x": whole, "y": Y}, 16).split(0.5)
    x, y = all_of(train)
    np.testing.assert_array_equal(x[:, 0], 3 * y)


def test_concat_binds_fields_by_name():
    parts = [{"a": X, "b": Y}, {"b": Y, "a": X}, {"b": Y[:3], "a": X[:3]}]
    batch = next(iter(gr.Loader(gr.sources.Concat(parts), 2 * N + 3)))
    np.testing.assert_array_equal(batch["a"][:, 0], 3 * batch["b"])


def test_concat_in_worker_processes():
    both = gr.sources.Concat([in_processes(Numbered(20).__getitem__, 20), in_processes(Numbered(9, 20).__getitem__, 9)])
    with gr.Loader(both, 4, shuffle=True) as made:
        assert sorted(numbers(made)) == list(range(29))


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ([], ValueError, "parts is empty"),
        ("x.npy", TypeError, "single path"),
        ([X, Y], ValueError, r"part 1 is array of '0' int64\[\], part 0 array of '0' float32\[3\]"),
        ([X, X[:, :2]], ValueError, r"part 1 .*float32\[2\]"),
        ([X, X.astype(np.float64)], ValueError, r"float64\[3\]"),
        ([(X, Y), (X,)], ValueError, "part 1 is tuple of '0' float32"),
        ([(X, Y), [X, Y]], ValueError, "part 1 is list"),
        ([{"x": X}, {"z": X}], ValueError, "part 1 is dict of 'z'"),
        ([X, Numbered(3)], TypeError, "part 0 is a ndarray, but others are Python functions or data sets"),
        ([X[:0], X[:0]], ValueError, "empty"),
        ([X, 3], TypeError, "is a int"),
        ([X, "missing.npy"], OSError, r"missing\.npy"),
    ],
)
def test_parts_that_do_not_fit(parts, error, words):
    with pytest.raises(error, match=words):
        gr.Loader(gr.sources.Concat(parts), 4)
    with pytest.raises(TypeError, match="has fields of its own"):
        gr.Loader((gr.sources.Concat([(X, Y)]), Y), 4)


# Random numbers


def drawn_by(function, **options):
    made = gr.Loader(gr.sources.Callable(function, 40, **options), 8, shuffle=True, seed=5)
    with made:
        return [np.concatenate(list(made)) for _ in range(2)]


def by_number(rows):
    return rows[np.argsort(rows[:, 0])]


@pytest.mark.parametrize(("function", "options"), [(drawn, {"reseed": True}), (drawn_from, {"rng": True})])
def test_draws_repeat_whoever_makes_the_sample(function, options):
    first = drawn_by(function, workers="processes", num_workers=1, **options)
    again = drawn_by(function, workers="processes", num_workers=3, **options)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    one, two = map(by_number, first)
    assert (one[:, 1:] != two[:, 1:]).all(), "each epoch draws anew"
    assert len(np.unique(one[:, 1:])) == one[:, 1:].size, "and each sample has numbers of its own"
    assert 0.3 < one[:, 1].mean() < 0.7
    if function is drawn_from:
        for threads in (0, 1, 3):
            made = gr.Loader(gr.sources.Callable(function, 40, rng=True), 8, shuffle=True, seed=5, num_threads=threads)
            np.testing.assert_array_equal(np.concatenate(list(made)), first[0])
        few = gr.Loader(gr.sources.Callable(function, 40, rng=True), 8, seed=5, indices=[7, 39])
        np.testing.assert_array_equal(np.concatenate(list(few)), one[[7, 39]])


def test_reading_here_disturbs_nobody():
    source = gr.sources.open_source(gr.sources.Callable(drawn, 40, workers="processes", reseed=True))
    np.random.seed(3)  # noqa: NPY002
    random.seed(4)
    want = np.random.rand(), random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    random.seed(4)
    one = source.read([5, 6], seed=1)
    np.testing.assert_array_equal(source.read([6, 5], seed=1)[::-1], one)
    assert (np.random.rand(), random.random()) == want  # noqa: NPY002


def test_threads_share_the_generators_and_cannot_seed_them():
    with pytest.raises(ValueError, match=r"reseed=True needs workers='processes'.*rng=True"):
        gr.sources.Callable(drawn, 4, reseed=True)


# Batches of all ranks


def test_parts_of_a_loader_with_a_global_batch_share_it_too():
    loader = gr.Loader((X, Y), global_batch=12)
    for part in (*loader.split(0.5), *loader.folds(2)[0]):
        assert part.batch_size == 12
        assert [part.for_rank(rank, 3).batch_size for rank in range(3)] == [4, 4, 4]
    ranked = gr.Loader((X, Y), global_batch=12, rank=1, world_size=3)
    assert [part.batch_size for part in (*ranked.split(0.5), *ranked.folds(2)[0])] == [4] * 4


def test_a_global_batch_is_shared_by_the_ranks():
    made = [gr.Loader((X, Y), global_batch=12, rank=rank, world_size=3) for rank in range(3)]
    assert {one.batch_size for one in made} == {4}
    assert gr.Loader((X, Y), global_batch=12).batch_size == 12
    for wrong, error, words in [
        ({"global_batch": 10, "rank": 0, "world_size": 3}, ValueError, r"multiple of world_size \(3\)"),
        ({}, TypeError, "give one of batch_size"),
        ({"batch_size": 4, "global_batch": 4}, TypeError, "give one of batch_size"),
        ({"global_batch": 0}, ValueError, "global_batch"),
    ]:
        with pytest.raises(error, match=words):
            gr.Loader((X, Y), **wrong)
