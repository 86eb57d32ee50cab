import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradring as gr
from gradring.optim import schedule
from gradring.optim.plateau import PlateauState

rates = st.floats(0.0, 10.0)
counts = st.integers(1, 50)
schedules = st.recursive(
    st.one_of(
        st.builds(schedule.constant, rates),
        st.builds(schedule.linear, rates, rates, counts),
        st.builds(schedule.cosine, rates, counts, rates),
        st.builds(schedule.step, rates, counts, st.floats(0.0, 1.0)),
        st.builds(schedule.polynomial, rates, counts, rates, st.floats(0.0, 5.0)),
        st.builds(schedule.one_cycle, rates, counts, st.floats(0.0, 1.0), st.floats(1.0, 100.0), st.floats(1.0, 1e5)),
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


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 37])
@pytest.mark.parametrize("pct_start", [0.1, 0.3, 0.9])
def test_one_cycle_and_polynomial_are_those_of_pytorch(steps, pct_start):
    torch = pytest.importorskip("torch")

    def rates(make):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.7, momentum=0.9)
        made, found = make(optimizer), []
        for step in range(steps):
            found.append(made.get_last_lr()[0])
            optimizer.step()
            if step < steps - 1:
                made.step()
        return found

    if steps * pct_start > 1:
        one = schedule.one_cycle(0.7, steps, pct_start, 10.0, 100.0)
        theirs = rates(
            lambda o: torch.optim.lr_scheduler.OneCycleLR(
                o, 0.7, steps, pct_start=pct_start, div_factor=10.0, final_div_factor=100.0
            )
        )
        np.testing.assert_allclose(one.range(0, steps), theirs, rtol=1e-9)
    theirs = rates(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, total_iters=steps, power=2.5))
    np.testing.assert_allclose(schedule.polynomial(0.7, steps, power=2.5).range(0, steps), theirs, rtol=1e-9)


@pytest.mark.parity
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    "options", [{}, {"patience": 0}, {"patience": 2, "cooldown": 3, "threshold": 0.05, "least": 1e-3}]
)
def test_plateau_is_that_of_pytorch(mode, options):
    torch = pytest.importorskip("torch")
    options = {"patience": 3, "cooldown": 0, "threshold": 1e-4, "least": 0.0, **options}
    ours = schedule.plateau(0.5, "metric", 0.3, mode=mode, **options)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    low = options.pop("least")
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, 0.3, min_lr=low, eps=0, **options)
    state, rng = PlateauState(), np.random.default_rng(5)
    for value in [*rng.random(30).tolist(), float("nan"), *rng.random(5).tolist()]:
        state = ours.seen(state, value)
        theirs.step(value)
        got = ours.reduced(np.full(1, 0.5), state.factor)[0]
        assert got == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        assert PlateauState.from_dict(json.loads(json.dumps(state.as_dict()))) == state or math.isnan(state.best)


def test_a_schedule_of_ones_own():
    @dataclasses.dataclass(frozen=True)
    class Root(schedule.Schedule):
        peak: float

        def at(self, steps):
            return self.peak / np.sqrt(1 + steps)

    def root(step):
        return 0.5 / math.sqrt(1 + step)

    for own in (Root(0.5), root):
        for rate in (own, schedule.warmup(own, 3), schedule.join([own, 0.1], [4])):
            optimizer = gr.optim.SGD(rate)
            assert optimizer == gr.optim.SGD(rate) and optimizer.learning_rate(20) in (0.1, pytest.approx(0.5, abs=0.4))
        np.testing.assert_allclose(gr.optim.SGD(own).learning_rates(2, 3), [root(2), root(3), root(4)])
    with pytest.raises(TypeError, match=r"\[Old\] a schedule's method is called at, without an underscore"):
        type("Old", (schedule.Schedule,), {"_at": lambda self, steps: steps})


@pytest.mark.parametrize(
    ("rate", "error", "words"),
    [
        (lambda step: -1.0, ValueError, r"the rate at step 0 is -1.0: must be a finite number of at least 0"),
        (lambda step: float("nan") if step == 2 else 1.0, ValueError, r"the rate at step 2 is nan"),
        (lambda step: "fast", TypeError, r"gave 'fast' at step 0"),
        (
            type("Wide", (schedule.Schedule,), {"at": lambda self, steps: np.ones(2)})(),
            ValueError,
            r"\[Wide\] at returned",
        ),
        (schedule.Schedule, TypeError, r"lr is the class Schedule"),
    ],
)
def test_a_bad_schedule_of_ones_own_is_named_and_changes_nothing(rate, error, words):
    with pytest.raises(error, match=words):
        model = gr.nn.Linear(3, 2).init(0)
        before = model.params["weight"].copy()
        trainer = gr.Trainer(model, optimizer=gr.optim.SGD(rate))
        try:
            trainer.step(np.ones((4, 3), np.float32), np.zeros(4, int))
        finally:
            np.testing.assert_array_equal(model.params["weight"], before)


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
        (lambda: schedule.one_cycle(1.0, 10, 1.5), ValueError, r"\[one_cycle\] pct_start is a share .* got 1.5"),
        (lambda: schedule.one_cycle(1.0, 10, div_factor=0), ValueError, r"\[one_cycle\] div_factor .* must be above 0"),
        (lambda: schedule.polynomial(1.0, 5, power=-1), ValueError, r"\[polynomial\] power .* got -1"),
        (lambda: schedule.plateau(0.1, 3), TypeError, r"\[plateau\] monitor must be a metric's name .* got 3"),
        (lambda: schedule.plateau(0.1, factor=1.0), ValueError, r"\[plateau\] factor .* below 1, got 1.0"),
        (lambda: schedule.plateau(0.1, patience=-1), ValueError, r"\[plateau\] patience .* got -1"),
        (lambda: schedule.plateau(0.1, mode="up"), ValueError, r"\[plateau\] mode"),
        (
            lambda: schedule.warmup(schedule.plateau(0.1), 3),
            TypeError,
            r"a plateau, which must be outermost: plateau\(warmup",
        ),
        (lambda: schedule.plateau(schedule.plateau(0.1)), TypeError, r"one is enough"),
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
