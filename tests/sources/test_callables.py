"""Samples that Python functions make: for samples of any type, a batch holds what numpy.asarray makes of them."""

from collections import OrderedDict, namedtuple

import numpy as np
import pytest

from gradring.sources import Callable, open_source

Pair = namedtuple("Pair", "x y")


class Odd:
    """What only numpy.asarray knows to read."""

    def __init__(self, i):
        self.i = i

    def __array__(self, dtype=None, copy=None):
        return np.full(3, self.i, np.float32)


class Kin(list):
    pass


def plain(i):
    return np.arange(6, dtype=np.float32).reshape(2, 3) * i


LOOKS = {
    "an array": plain,
    "strided": lambda i: np.arange(24, dtype=np.int16).reshape(4, 6)[::2, ::2] * i,
    "transposed": lambda i: plain(i).T,
    "no axis": lambda i: np.array(i, np.int32),
    "a scalar": lambda i: np.float64(i) / 3,
    "a number": lambda i: i * 7,
    "a truth": lambda i: i % 2 == 0,
    "an odd one": Odd,
    "no elements": lambda i: np.zeros((0, 3), np.uint8),
    "a date": lambda i: np.array(["2020-01-01", "2021-02-03"], "M8[D]") + i,
    "text": lambda i: np.array([f"{i:04d}"]),
    "halves": lambda i: np.full(5, i, np.float16),
    "complex": lambda i: np.full(2, complex(i, 1)),
    "long long": lambda i: np.full(2, i, np.longlong),
}


@pytest.mark.parametrize("look", LOOKS)
def test_samples_of_every_look(look):
    fn = LOOKS[look]
    numbers = [3, 0, 9, 9]
    expected = np.stack([np.asarray(fn(i)) for i in numbers])

    def same(array):
        assert array.dtype == expected.dtype and np.array_equal(array, expected)

    same(open_source(Callable(fn, 10)).read(numbers))
    for form in (tuple, list):
        first, second = open_source(Callable(lambda i, form=form: form((fn(i), i)), 10)).read(numbers)
        same(first)
        assert second.tolist() == numbers
    same(open_source(Callable(lambda i: {"a": i, "b": fn(i)}, 10)).read(numbers)["b"])


def test_a_sample_that_hides_values():
    with pytest.raises(TypeError, match=r"field '0' is a MaskedArray, which hides values: replace them with \.filled"):
        open_source(Callable(lambda i: np.ma.masked_array(plain(i), mask=plain(i) > 3), 10))


def test_samples_in_containers_that_are_kin_of_tuples_and_dicts():
    for make in (Pair, lambda *parts: Kin(parts), lambda *parts: OrderedDict(zip("xy", parts, strict=True))):
        batch = open_source(Callable(lambda i, make=make: make(plain(i), np.int64(i)), 10)).read([4, 2])
        x, y = batch.values() if isinstance(batch, dict) else batch
        assert np.array_equal(x, np.stack([plain(4), plain(2)]))
        assert y.tolist() == [4, 2]


def test_keys_that_are_no_text_name_fields_by_their_text():
    batch = open_source(Callable(lambda i: {0: plain(i), 1.5: np.int8(i)}, 10)).read([4])
    assert list(batch) == ["0", "1.5"]
    assert np.array_equal(batch["0"][0], plain(4))


def other_than_first(first, other):
    return lambda i: other if i else first


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (np.zeros(3, np.float32), np.zeros(3)),
        (np.zeros(3, np.float32), np.zeros((3, 1), np.float32)),
        (np.zeros(3, np.float32), np.zeros(4, np.float32)[:2]),
        (np.zeros(3, np.float32), (np.zeros(3, np.float32),)),
        (np.zeros(2, "M8[s]"), np.zeros(2, "M8[ms]")),
        ((1, 2), (1, 2, 3)),
        ((1, 2), [1, 2]),
        ((1, 2), (1, 2.5)),
        ([1, 2], [1]),
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 1, "c": 2}),
        ({"a": np.zeros(2), "b": np.zeros(2)}, {"b": np.zeros(2), "a": np.zeros(3)}),
        ({"a": np.zeros(2)}, {"a": np.zeros(3)}),
    ],
)
def test_samples_that_differ_from_the_first(first, other):
    opened = open_source(Callable(other_than_first(first, other), 10))
    opened.read([0, 0])
    with pytest.raises(ValueError, match=r"^\[Callable\] fn\(3\) returned .* fn\(0\)"):
        opened.read([0, 3])


def test_samples_that_numpy_cannot_read():
    opened = open_source(Callable(lambda i: (1, [[1], [2, 3]]) if i else (1, 2), 10))
    with pytest.raises(ValueError, match="inhomogeneous"):
        opened.read([1])


def test_a_list_that_its_own_items_empty():
    def make(i):
        sample = []

        class Thief(Odd):
            def __array__(self, dtype=None, copy=None):
                sample.clear()
                return super().__array__()

        sample += [Thief(i), np.arange(3)] if i else [Odd(i), np.arange(3)]
        return sample

    with pytest.raises(ValueError, match=r"fn\(1\) returned list of \[\]"):
        open_source(Callable(make, 10)).read([1])
