"""A number of a device does what a float does, and waits only when it is used."""

import copy
import math
import numbers
import operator
import pickle

import numpy as np
import pytest

from gradring.cuda import Number

VALUE = -2.75


def number(value=VALUE):
    return Number(lambda: value)


@pytest.mark.parametrize(
    "use",
    [
        float, int, bool, complex, repr, str, hash, abs, round, math.floor, math.ceil, math.trunc, math.isnan, math.exp,
        operator.neg, operator.pos, np.asarray, np.float32, np.sqrt,
        lambda v: round(v, 1), lambda v: f"{v:.3f}", lambda v: f"{v:>12}", lambda v: v.real,
        lambda v: v.imag, lambda v: v.conjugate(), lambda v: v.is_integer(), lambda v: v.as_integer_ratio(),
        lambda v: isinstance(v, numbers.Real), lambda v: np.isfinite(v), lambda v: np.array([v, v]), lambda v: {v: 1},
        lambda v: min(v, 1.0), lambda v: sum([v, v]), lambda v: sorted([v, -3.0, 0.0]),
    ],
)  # fmt: skip
def test_each_use_gives_what_it_gives_for_a_float(use):
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(use(number()), use(VALUE))


@pytest.mark.parametrize("other", [2, 0.5, VALUE, np.float64(1.5), np.arange(3.0), number(4.0)], ids=repr)
@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "eq", "ne", "lt", "le", "gt", "ge"]
)
def test_operators_take_numbers_and_arrays_on_both_sides(name, other):
    call = getattr(operator, name)
    plain = float(other) if isinstance(other, Number) else other
    with np.errstate(all="ignore"):
        if name == "pow":  # a float to a power that is no whole number would be complex
            assert call(number(2.0), 3) == 8.0 and call(3, number(2.0)) == 9.0
        else:
            if not (name in ("truediv", "floordiv", "mod") and isinstance(plain, float) and plain == 0):
                np.testing.assert_array_equal(call(number(), other), call(VALUE, plain))
            np.testing.assert_array_equal(call(other, number()), call(plain, VALUE))
    assert divmod(number(), 2) == divmod(VALUE, 2) and divmod(7, number()) == divmod(7, VALUE)


def test_copies_and_pickles_are_floats():
    for made in (copy.copy(number()), copy.deepcopy([number()])[0], pickle.loads(pickle.dumps(number()))):
        assert type(made) is float and made == VALUE


def test_it_is_read_once_and_an_error_comes_again():
    reads = []

    def read():
        reads.append(1)
        if len(reads) < 3:
            raise ValueError("not yet")
        return 1.0

    lazy = Number(read)
    assert not reads
    for _ in range(2):
        with pytest.raises(ValueError, match="not yet"):
            lazy + 1
    assert lazy == 1.0 and lazy == 1.0 and len(reads) == 3
    with pytest.raises(ValueError, match="copy is False"):
        np.asarray(lazy, copy=False)
