"""Kind 2: structure by name, never by guess."""

import itertools

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(2)
X, Y = RNG.standard_normal((40, 3)).astype(np.float32), RNG.standard_normal((40, 3)).astype(np.float32)


def trainer(**options):
    model = gr.nn.Sequential(gr.nn.Linear(3, 3)).init(3)
    return gr.Trainer(model, loss="mse", optimizer=gr.optim.SGD(0.1), **options)


def trained(data, **options):
    made = trainer()
    size = {} if isinstance(data, list) else {"batch_size": 8}
    made.fit(data, 2, **size, verbose=False, **options)
    return made.params["0.weight"].copy()


class Samples:
    """A map-style data set, as PyTorch has it."""

    def __init__(self, *order):
        self.order = order

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        fields = {"x": X[i], "y": Y[i]}
        return {name: fields[name] for name in self.order} if self.order else (X[i], Y[i])


RECORDS = np.zeros(40, [("y", "f4", 3), ("x", "f4", 3)])
RECORDS["x"], RECORDS["y"] = X, Y
SOURCES = {
    "dict": lambda: {"x": X, "y": Y},
    "dict, y first": lambda: {"y": Y, "x": X},
    "loader over a dict": lambda: gr.Loader({"y": Y, "x": X}, 8, shuffle=True),
    "loader over a tuple": lambda: gr.Loader((X, Y), 8, shuffle=True),
    "loader over records": lambda: gr.Loader(RECORDS, 8, shuffle=True),
    "map style": lambda: Samples(),
    "map style, named": lambda: Samples("y", "x"),
    "callable, named": lambda: gr.Loader(gr.sources.Callable(Samples("y", "x").__getitem__, 40), 8, shuffle=True),
}


@pytest.mark.parametrize("name", SOURCES)
def test_fit_binds_by_name_whatever_the_order(name):
    np.testing.assert_array_equal(trained(SOURCES[name]()), trained((X, Y)))


@pytest.mark.parametrize("name", SOURCES)
def test_evaluate_binds_by_name(name):
    want = trainer().evaluate((X, Y))["loss"]
    assert trainer().evaluate(SOURCES[name]())["loss"] == pytest.approx(want, rel=1e-6)


def test_batches_that_are_dicts_and_step():
    batches = [{"y": Y[i : i + 8], "x": X[i : i + 8]} for i in range(0, 40, 8)]
    pairs = [(b["x"], b["y"]) for b in batches]
    np.testing.assert_array_equal(trained(batches), trained(pairs))
    assert trainer().evaluate(batches) == trainer().evaluate(pairs)
    steps = [trainer().step(X, Y), trainer().step({"y": Y, "x": X}), trainer().step(y=Y, x=X)]
    assert len(set(steps)) == 1


@pytest.mark.parametrize("way", ["fit", "evaluate"])
@pytest.mark.parametrize("fields", [{"target": Y, "input": X}, {"x": X}, {"x": X, "y": Y, "z": Y}])
def test_other_names_are_an_error_and_not_a_guess(way, fields):
    for data in (fields, gr.Loader(fields, 8), [fields]):
        with pytest.raises((ValueError, TypeError), match=r"has the fields .*'x' and 'y' alone"):
            getattr(trainer(), way)(data)
    assert sorted(next(iter(gr.Loader(fields, 4)))) == sorted(fields)  # a loader alone takes any


def test_step_with_other_names():
    with pytest.raises(TypeError, match="input"):
        trainer().step({"input": X, "y": Y})


def test_a_list_of_paths_is_no_tuple_of_fields(tmp_path):
    paths = [tmp_path / "part0.npy", str(tmp_path / "part1.npy")]
    for path in paths:
        np.save(path, X)
    with pytest.raises(TypeError, match=r"gr\.sources\.Concat"):
        gr.Loader(paths, 4)
    assert len(next(iter(gr.Loader(tuple(paths), 4)))) == 2


@pytest.mark.parametrize(
    "sample",
    [
        lambda i: ((np.zeros(4), np.ones(4)), i),
        lambda i: {"pair": [np.zeros(4), np.ones(4)], "label": i},
        lambda i: (i, {"image": np.zeros(4)}),
        lambda i: [i, (np.zeros((2, 2)),)],
    ],
)
def test_nested_samples_are_refused_by_name(sample):
    with pytest.raises(TypeError, match=r"field '(0|pair|1)' of a sample is a (tuple|list|dict) of its own"):
        gr.Loader(gr.sources.Callable(sample, 8), 4)


def test_a_list_of_numbers_is_a_vector():
    batch = next(iter(gr.Loader(gr.sources.Callable(lambda i: ([i, 2.0], i), 8), 4)))
    assert batch[0].tolist() == [[0.0, 2.0], [1.0, 2.0], [2.0, 2.0], [3.0, 2.0]]


@pytest.mark.parametrize("num_threads", [0, 2])
def test_samples_name_their_fields_in_any_order(num_threads):
    def sample(i):
        fields = {"image": np.full(3, i, np.float32), "label": i, "mask": np.full(3, -i, np.float32)}
        names = list(itertools.permutations(fields))[i % 6]
        return {name: fields[name] for name in names}

    for batch in gr.Loader(gr.sources.Callable(sample, 12), 4, num_threads=num_threads):
        np.testing.assert_array_equal(batch["image"][:, 0], batch["label"])
        np.testing.assert_array_equal(batch["mask"][:, 2], -batch["label"])
    with pytest.raises(ValueError, match=r"fn\(1\) returned dict of \['b'\], fn\(0\) dict of \['a'\]"):
        list(gr.Loader(gr.sources.Callable(lambda i: {"ab"[i]: 1.0}, 2), 2))


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4", ">i8", ">u2"])
def test_samples_in_another_byte_order(dtype):
    rows = np.arange(24).reshape(8, 3).astype(dtype)
    y = Y[:8]
    source = gr.sources.Callable(lambda i: (rows[i], y[i]), 8)
    loader = gr.Loader(source, 8)
    got, _ = next(iter(loader))
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, rows)
    native = (rows.astype(np.dtype(dtype).newbyteorder("=")), y)
    assert trainer().evaluate(gr.Loader(source, 8)) == trainer().evaluate(native)
    np.testing.assert_array_equal(trained(gr.Loader(source, 8)), trained(gr.Loader(native, 8)))
    scaled = gr.Loader(source, 8, transforms={0: gr.transforms.Scale(2.0)})
    np.testing.assert_array_equal(next(iter(scaled))[0], rows * 2.0)


class Endless:
    """Says that it has ten batches, and never ends."""

    def __init__(self, length=None):
        self.given = 0
        if length is not None:
            self.length = length

    def __len__(self):
        if not hasattr(self, "length"):
            raise TypeError("no length")
        return self.length

    def __iter__(self):
        for _ in itertools.count():
            self.given += 1
            yield X[:4], Y[:4]


def test_an_epoch_ends_after_len():
    source = Endless(10)
    made = trainer()
    made.fit(source, 3, validate=Endless(2), verbose=False)
    assert made.step_count == 30 and source.given == 30
    made.evaluate(source)
    assert source.given == 40


@pytest.mark.parametrize("own", [False, True])
def test_steps_per_epoch(own):
    def step(params, batch):
        return 0.0, {"w": np.zeros(1)}

    def made():
        return gr.Trainer(step=step, params={"w": np.zeros(1)}, optimizer=gr.optim.SGD(0.1)) if own else trainer()

    for data in (Endless(), Endless(10), (X, Y), gr.Loader((X, Y), 8)):
        one = made()
        size = {"batch_size": 8} if isinstance(data, tuple) else {}
        assert len(one.fit(data, 2, steps_per_epoch=4, verbose=False, **size)) == 2 and one.step_count == 8
    for data, length in ((Endless(2), 2), (gr.Loader((X, Y), 8), 5)):
        with pytest.raises(ValueError, match=rf"steps_per_epoch is 6, and data has {length} batches.*give more epochs"):
            made().fit(data, 2, steps_per_epoch=6, verbose=False)
    with pytest.raises(ValueError, match="steps_per_epoch"):
        trainer().fit((X, Y), steps_per_epoch=0)


def test_accuracy_where_the_data_are_batches():
    x = RNG.standard_normal((50, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)

    def history(data):
        model = gr.nn.Sequential(gr.nn.Linear(3, 2)).init(0)
        return gr.Trainer(model, optimizer=gr.optim.SGD(0.5)).fit(data, 3, verbose=False).metrics

    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 50, 8)]
    assert history(batches)["accuracy"] == history(gr.Loader((x, y), 8))["accuracy"]
