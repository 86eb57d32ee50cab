import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradring as gr
from gradring.optim import schedule

rates = st.floats(0.0, 10.0)
counts = st.integers(1, 50)
schedules = st.recursive(
    st.one_of(
        st.builds(schedule.constant, rates),
        st.builds(schedule.linear, rates, rates, counts),
        st.builds(schedule.cosine, rates, counts, rates),
        st.builds(schedule.step, rates, counts, st.floats(0.0, 1.0)),
    ),
    lambda inner: st.one_of(
        st.builds(schedule.warmup, inner, counts),
        st.builds(lambda a, b, start: schedule.join([a, b], [start]), inner, inner, counts),
    ),
    max_leaves=4,
)


@given(schedules, st.integers(0, 100), st.integers(0, 100))
def test_a_range_is_the_same_as_step_by_step(rate, first, count):
    values = rate.range(first, count)
    assert values.dtype == np.float64 and values.shape == (count,)
    assert values.tolist() == [rate(first + i) for i in range(count)]
    assert rate(np.arange(6).reshape(2, 3)).shape == (2, 3)


@given(schedules, counts)
def test_warmup_rises_to_the_first_rate_and_then_follows(rate, steps):
    warm = schedule.warmup(rate, steps)
    assert warm(0) == pytest.approx(rate(0) / steps)
    assert warm(steps - 1) == pytest.approx(rate(0))
    np.testing.assert_array_equal(warm.range(steps, 20), rate.range(0, 20))


@given(schedules)
def test_equal_schedules_compare_equal_and_print(rate):
    copy = eval(repr(rate), vars(schedule))
    assert copy == rate and hash(copy) == hash(rate)


def test_each_formula():
    assert schedule.linear(1.0, 0.0, 4).range(0, 6).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert schedule.cosine(2.0, 10, 1.0)(3) == pytest.approx(1 + (1 + math.cos(0.3 * math.pi)) / 2)
    assert schedule.cosine(2.0, 10, 1.0)(11) == 1.0
    assert schedule.step(1.0, 2, 0.5).range(0, 5).tolist() == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert schedule.join([1.0, schedule.linear(2.0, 0.0, 2), 5.0], [1, 3]).range(0, 4).tolist() == [1.0, 2.0, 1.0, 5.0]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: schedule.constant("a"),
            TypeError,
            r"\[constant\] rate must be a finite number of at least 0, got 'a'",
        ),
        (
            lambda: schedule.constant(float("nan")),
            ValueError,
            r"\[constant\] rate must be a finite number of at least 0, got nan",
        ),
        (lambda: schedule.linear(-1.0, 0.0, 5), ValueError, r"\[linear\] start .* got -1"),
        (lambda: schedule.cosine(1.0, 0), ValueError, r"\[cosine\] steps must be an int of at least 1, got 0"),
        (lambda: schedule.cosine(1.0, 2.5), TypeError, r"\[cosine\] steps must be an int of at least 1, got 2.5"),
        (lambda: schedule.step(1.0, True - 1), ValueError, r"\[step\] every must be an int of at least 1"),
        (
            lambda: schedule.warmup(None, 3),
            TypeError,
            r"\[warmup\] then must be a finite number of at least 0, got None",
        ),
        (lambda: schedule.join([1.0, 2.0], []), ValueError, r"\[join\] 2 schedules need 1 starts, got 0"),
        (lambda: schedule.join([], []), ValueError, r"\[join\] 0 schedules"),
        (lambda: schedule.join([1.0, 2.0, 3.0], [5, 5]), ValueError, r"\[join\] starts must rise, got \[5, 5\]"),
        (lambda: schedule.constant(1.0)(-1), ValueError, r"\[schedule\] a step counts updates from 0, got -1"),
        (lambda: schedule.constant(1.0).range(0, -1), ValueError, r"\[schedule\] first and count"),
    ],
)
def test_bad_input(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_an_optimizer_takes_a_schedule_or_a_float():
    assert gr.optim.SGD(0.5).learning_rates(3, 2).tolist() == [0.5, 0.5]
    assert gr.optim.SGD(schedule.linear(1.0, 0.0, 4)).learning_rates(3, 2).tolist() == [0.25, 0.0]
