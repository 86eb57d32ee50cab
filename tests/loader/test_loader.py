import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradring as gr
from gradring.loader import as_source

from .functions import Sample


@pytest.fixture
def arrays():
    return np.arange(20.0).reshape(10, 2), np.arange(10)


@given(st.integers(1, 40), st.integers(1, 45), st.booleans(), st.booleans(), st.integers(0, 2**40), st.integers(0, 5))
def test_an_epoch_has_every_sample_once(samples, batch_size, shuffle, drop_last, seed, epoch):
    x = np.arange(samples)
    if drop_last and batch_size > samples:
        with pytest.raises(ValueError, match="drop_last leaves nothing"):
            gr.Loader(x, batch_size, drop_last=True)
        return
    loader = gr.Loader(x, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
    loader.set_epoch(epoch)
    batches = list(loader)
    assert len(batches) == len(loader) and loader.epoch == epoch + 1
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    seen = np.concatenate(batches)
    assert len(seen) == (samples // batch_size * batch_size if drop_last else samples)
    assert len(np.unique(seen)) == len(seen)
    if not shuffle:
        np.testing.assert_array_equal(seen, x[: len(seen)])


def test_the_order_depends_on_seed_and_epoch_and_nothing_else(arrays):
    def orders(seed):
        loader = gr.Loader(np.arange(500), 7, shuffle=True, seed=seed)
        return [np.concatenate(list(loader)).tolist() for _ in range(3)]

    assert orders(3) == orders(3) != orders(4)
    assert len({tuple(order) for order in orders(3)}) == 3
    loader = gr.Loader(np.arange(500), 64, shuffle=True, seed=3)
    loader.set_epoch(1)
    assert np.concatenate(list(loader)).tolist() == orders(3)[1] == loader_order(3, 1)


def loader_order(seed, epoch):
    loader = gr.Loader(np.arange(500), 1, shuffle=True, seed=seed)
    loader.load_state_dict({"seed": seed, "epoch": epoch, "position": 0})
    return loader.order().tolist()


def test_batches_from_the_middle(arrays):
    loader = gr.Loader(arrays, 3, shuffle=True)
    whole = list(loader.batches())
    for start in range(5):
        for (x, y), (wanted_x, wanted_y) in zip(loader.batches(start), whole[start:], strict=True):
            assert np.array_equal(x, wanted_x) and np.array_equal(y, wanted_y)
    assert loader.epoch == 0


def test_forms(arrays, tmp_path):
    x, y = arrays
    np.save(tmp_path / "x.npy", x)
    (batch,) = gr.Loader(x, 10)
    np.testing.assert_array_equal(batch, x)
    for source in ((x, y), [x, y], (tmp_path / "x.npy", y), (str(tmp_path / "x.npy"), y)):
        (batch,) = gr.Loader(source, 10)
        assert isinstance(batch, type(source))
        np.testing.assert_array_equal(batch[0], x)
        np.testing.assert_array_equal(batch[1], y)
    (batch,) = gr.Loader({"image": x, "label": y}, 10)
    assert list(batch) == ["image", "label"]


@pytest.mark.parametrize("shuffle", [False, True])
def test_any_strides_and_dtypes_and_batches_are_copies(shuffle):
    x = np.arange(48, dtype=np.uint8).reshape(6, 8)[::-1, ::2]
    x.flags.writeable = False
    before = x.copy()
    for batch in gr.Loader(x, 4, shuffle=shuffle):
        assert batch.dtype == np.uint8
        batch[...] = 0
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("num_threads", ["auto", 0, 1, 3])
def test_large_batches_which_are_filled_in_parts_and_around_the_caches(num_threads):
    random = np.random.default_rng()
    x = random.integers(0, 256, (150, 3, 224, 150), dtype=np.uint8)
    loader = gr.Loader((x, np.arange(150)), 64, shuffle=True, num_threads=num_threads)
    kept = []
    for _ in range(3):
        kept = [*kept[-1:], *loader]
        for rows, numbers in kept:
            np.testing.assert_array_equal(rows, x[numbers])
    assert sum(len(numbers) for _, numbers in kept[1:]) == 150


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ((), ValueError, r"\[loader\] the source is an empty tuple"),
        ({}, ValueError, r"\[loader\] the source is an empty dict"),
        (3.0, TypeError, r"is a float: expected an array"),
        (([1, [2, 3]], [3, 4]), ValueError, r"field '0' is ragged"),
        ((np.zeros(3), None), TypeError, r"field '1' is a NoneType"),
        ((np.zeros(3), np.array([None] * 3)), TypeError, r"field '1' has dtype object"),
        (np.float32(1), (TypeError, ValueError), r"single value|is a float32"),
        (np.zeros((0, 3)), ValueError, r"empty|at least one sample"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, ValueError, r"'y' has 4 samples .* 'x' has 3"),
    ],
)
def test_bad_sources(source, error, words):
    with pytest.raises(error, match=words):
        gr.Loader(source, 2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"batch_size": 0}, ValueError, r"^\[Loader\] batch_size must be an int of at least 1, got 0$"),
        ({"batch_size": 2.0}, TypeError, r"^\[Loader\] batch_size must be an int of at least 1, got 2\.0$"),
        ({"batch_size": True}, TypeError, r"^\[Loader\] batch_size must be an int of at least 1, got True$"),
        ({"batch_size": 2, "seed": -1}, ValueError, r"^\[Loader\] seed must be an int from 0 to \d+, got -1$"),
        ({"batch_size": 2, "seed": "1"}, TypeError, r"^\[Loader\] seed must be an int from 0 to \d+, got '1'$"),
    ],
)
def test_bad_options(arrays, options, error, words):
    with pytest.raises(error, match=words):
        gr.Loader(arrays, **options)


@pytest.mark.cpu("no device has strings")
def test_strings_and_complex_numbers_pass_through():
    source = {"name": np.array(["a", "bc", "d"]), "z": np.array([1j, 2, 3])}
    (batch,) = gr.Loader(source, 5)
    assert batch["name"].tolist() == ["a", "bc", "d"] and batch["z"].tolist() == [1j, 2, 3]


def test_a_corrupt_npy_file(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(100.0))
    content = (tmp_path / "x.npy").read_bytes()
    for bad in (b"", content[:50], content[:-8], b"PK\x03\x04" + content):
        (tmp_path / "x.npy").write_bytes(bad)
        with pytest.raises((ValueError, OSError), match=r"x.npy"):
            gr.Loader(tmp_path / "x.npy", 10)


def arriving(loader, error, words):
    """The rows that came before this error."""
    seen = []
    with pytest.raises(error, match=words) as caught:
        for batch in loader:
            seen += batch.tolist()
    return seen, caught.value


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_file_that_shrinks_is_an_error_after_all_earlier_batches(tmp_path, num_threads):
    x = np.arange(40_000)
    np.save(tmp_path / "x.npy", x)
    loader = gr.Loader(tmp_path / "x.npy", 1000, num_threads=num_threads)
    os.truncate(tmp_path / "x.npy", 128 + 25_500 * 8)
    seen, error = arriving(loader, OSError, r"x\.npy was cut short while it was being read: offset \d+ is gone")
    assert seen == list(range(25_000)) and error.sample_index >= 25_000


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_transform_that_returns_another_shape_is_an_error_after_all_earlier_batches(num_threads):
    step = gr.transforms.Python(lambda row: row[:1] if row[0] == 57 else row)
    loader = gr.Loader(np.arange(100).reshape(100, 1).repeat(2, 1), 10, transforms=[step], num_threads=num_threads)
    seen, error = arriving(loader, ValueError, r"returned int64 \(1,\) for sample 57, expected int64 \(2,\)")
    assert len(seen) == 50 and error.sample_index == 57


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_function_that_has_fewer_samples_than_it_said(num_threads):
    data = [np.int64(i) for i in range(42)]
    loader = gr.Loader(gr.sources.Callable(data.__getitem__, 100), 10, num_threads=num_threads)
    seen, error = arriving(loader, IndexError, "out of range")
    assert seen == list(range(40)) and error.sample_index == 42


def test_labels_out_of_range_are_named_with_their_sample():
    y = np.arange(100) % 10
    y[33] = 11
    loader = gr.Loader((y, y), 10, transforms={1: gr.transforms.OneHot(10)})
    with pytest.raises(ValueError, match="OneHot: label 11 is not in") as caught:
        list(loader)
    assert caught.value.sample_index == 33


def test_what_serves_as_a_source(arrays):
    loader = gr.Loader(arrays, 4)
    assert as_source("f", loader, 2, shuffle=True, seed=0) is loader
    made = as_source("f", arrays, 2, shuffle=True, seed=5)
    assert (made.batch_size, made.shuffle, made.seed) == (2, True, 5)
    batches = [(np.zeros(1), np.zeros(1))]
    with pytest.raises(TypeError, match=r"\[f\] data is an iterator, which can be read only once"):
        as_source("f", iter(batches), 2, shuffle=True, seed=0)
    for wrong in (arrays[0], 3, None):
        with pytest.raises(TypeError, match=r"\[f\] data must be a Loader, arrays \(x, y\), a data set or an iterable"):
            as_source("f", wrong, 2, shuffle=True, seed=0)


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_a_function_that_raises_stop_iteration_does_not_end_the_epoch(workers, num_threads):
    source = gr.sources.Callable(Sample("stop iteration", at=57), 100, workers=workers)
    with gr.Loader(source, 10, num_threads=num_threads) as loader:
        seen = []
        with pytest.raises(gr.LoaderError, match="the source raised StopIteration, while reading sample 57") as caught:
            for _, y in loader:
                seen += y.tolist()
    assert seen == list(range(50)) and isinstance(caught.value.__cause__, StopIteration)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"seed": 2**64}, ValueError, r"seed must be an int from 0 to 18446744073709551615"),
        ({"rank": 0, "world_size": 2**63}, ValueError, "world_size must be an int from 1 to 2147483648"),
        ({"memory_budget": 2**70}, None, ""),
        ({"memory_budget": np.float32(1e9), "timeout": np.float32(5)}, None, ""),
        ({"seed": 2**64 - 1, "batch_size": 2**70, "timeout": 1e308}, None, ""),
    ],
)
def test_numbers_beyond_all_bounds(change, error, words):
    def read():
        return np.concatenate(list(gr.Loader(np.arange(10), **{"batch_size": 3, "shuffle": True, **change})))

    if error:
        with pytest.raises(error, match=rf"^\[Loader\] .*{words}"):
            read()
    else:
        assert sorted(read().tolist()) == list(range(10))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"epoch": 0},
        None,
        [1],
        {"epoch": "0", "seed": 0},
        {"epoch": 1, "seed": -1, "position": 5},
        {"epoch": 2**64, "seed": 1},
        {"epoch": 1, "seed": 1, "position": 2**70},
        {"epoch": 1, "seed": 1, "samples": 3},
    ],
)
def test_a_state_that_is_none_changes_nothing(state):
    loader = gr.Loader(np.arange(10), 3, shuffle=True, seed=7)
    loader.set_epoch(3)
    before = loader.state_dict()
    with pytest.raises((ValueError, TypeError), match=r"^\[Loader\]"):
        loader.load_state_dict(state)
    assert loader.state_dict() == before


def test_keys_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two keys of the source have the same name"):
        gr.Loader({0: np.arange(3), "0": np.arange(3)}, 2)


@pytest.mark.parametrize("kind", [gr.sources.Npy, gr.sources.Idx, lambda path: gr.sources.RawRecords(path, "u1")])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="no regular file"):
            gr.Loader(kind(path), 2)
    with pytest.raises(OSError, match="directory|no regular file"):
        gr.Loader(kind(tmp_path), 2)


def test_a_path_that_cannot_be_said(tmp_path):
    path = os.fsencode(tmp_path) + b"/x\xff.npy"
    with open(path, "wb") as file:
        np.save(file, np.arange(10))
    with pytest.raises(ValueError, match=r"x\\udcff.npy' is not valid UTF-8"):
        gr.Loader(os.fsdecode(path), 2)
    mapped = np.load(os.fsdecode(path), mmap_mode="r")
    assert np.concatenate(list(gr.Loader(mapped, 3))).tolist() == list(range(10))


def test_records_and_functions_beyond_all_bounds(tmp_path):
    with pytest.raises(ValueError, match="larger than any file"):
        gr.sources.RawRecords(tmp_path / "x", "u1", (2**40, 2**40))
    with pytest.raises(ValueError, match=r"\[Callable\] length must be an int from 1 to 9223372036854775807"):
        gr.sources.Callable(np.int64, 2**63)
    for first, count in ((-1, None), (11, None), (5, 6)):
        with pytest.raises(ValueError, match=r"\[Loader\] (first|count) must be"):
            gr.Loader(np.arange(10), 3, shuffle=True).order(first, count)
