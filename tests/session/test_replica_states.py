"""Replicas whose planning is interrupted, whose parameters are torn, or that are saved within a group of batches."""

import numpy as np
import pytest

import gradring as gr
from gradring import checkpoint
from helpers import snapshot

RNG = np.random.default_rng(23)
X = RNG.standard_normal((40, 5))
Y = RNG.integers(0, 3, 40)


def trainer(replicas=3, **options):
    layers = gr.nn.Linear(5, 11), gr.nn.Tanh(), gr.nn.Dropout(0.2), gr.nn.Linear(11, 3)
    model = gr.nn.Sequential(*layers).init(7)
    return gr.Trainer(model, optimizer=gr.optim.AdamW(1e-2), replicas=replicas, dtype="float64", **options)


class Around:
    """The native replicas, with other methods and attributes in the place of some of theirs."""

    def __init__(self, made, **others):
        self.inner = made.session._programs.replicas
        self.__dict__.update(others)
        made.session._programs.replicas = self

    def __getattr__(self, name):
        return getattr(self.inner, name)


def interrupts(call, at, *, late):
    """The call, which KeyboardInterrupt ends at its number ``at``, before or after it does its work."""
    count = 0

    def wrapped(*args, **named):
        nonlocal count
        count += 1
        if count - 1 != at:
            return call(*args, **named)
        if late:
            call(*args, **named)
        raise KeyboardInterrupt

    return wrapped


# Planning


@pytest.mark.parametrize("target", [(4,), (3, 1), ()], ids=str)
def test_targets_of_another_shape_are_refused_each_time_whichever_replica_has_rows(target):
    made = gr.Trainer(gr.nn.Linear(2, 3), "mse", replicas=4)
    for rows in (1, 2, 3, 5):
        x, y = np.ones((rows, 2), "f4"), np.ones((rows, *target), "f4")
        for _ in range(2):
            with pytest.raises(ValueError, match=rf"y is \({rows},.* the model gives \({rows}, 3\)"):
                made.step(x, y)
        with pytest.raises(ValueError, match="the model gives"):
            made.fit((x, y), verbose=0)
    assert made.step_count == 0
    assert made.step(np.ones((1, 2), "f4"), np.ones((1, 3), "f4")) > 0
    assert made.step_count == 1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("where", ["plan", "add"])
@pytest.mark.parametrize("way", ["step", "fit"])
def test_an_interrupt_while_a_replica_is_planned(monkeypatch, where, at, late, way):
    def train(made):
        if way == "step":
            assert made.step(X, Y) > 0
        else:
            made.fit((X, Y), batch_size=16, verbose=0)

    made, whole = trainer(), trainer()
    if where == "plan":
        plan = gr.session.programs.plan
        monkeypatch.setattr("gradring.session.programs.plan", interrupts(plan, at, late=late))
    else:
        replicas = made.session._programs.replicas
        Around(made, add=interrupts(replicas.add, at, late=late))
    with pytest.raises(KeyboardInterrupt):
        train(made)
    assert made.step_count == 0
    for each in (made, whole):
        train(each)
    assert snapshot(made) == snapshot(whole)
    assert "sum_planes" in str(made.session.plan())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("replicas", [1, 2])
def test_an_interrupt_while_programs_are_forgotten(replicas, late):
    made, whole = trainer(replicas), trainer(replicas)
    for each in (made, whole):
        each.step(X, Y)
    programs = made.session._programs
    if replicas > 1:
        Around(made, clear=interrupts(programs.replicas.clear, 0, late=late))
    else:
        inner = programs.native
        programs.native = Around.__new__(Around)
        programs.native.__dict__.update(inner=inner, clear=interrupts(inner.clear, 0, late=late))
    with pytest.raises(KeyboardInterrupt):
        programs.clear()
    for each in (made, whole):
        each.step(X.astype("f4"), Y)
        each.fit((X, Y), batch_size=7, verbose=0)
    assert snapshot(made) == snapshot(whole)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_plan_without_a_program_is_an_error_and_no_silence(monkeypatch, replicas):
    """Were a batch shape taken for planned by mistake, training would seem to succeed, or never end."""
    made, asked = trainer(replicas), []

    def pretend(*_):
        asked.append(1)
        assert len(asked) < 100
        return False

    with monkeypatch.context() as lie:
        lie.setattr(made.session._programs, "ensure", pretend)
        lie.setattr(made.session._programs, "ensure_replicas", pretend)
        for _ in range(2):
            with pytest.raises(gr.GradringError, match="internal: a step of .* has not run"):
                made.step(X, Y)
            with pytest.raises(gr.GradringError, match="internal: a step of .* has not run"):
                made.fit((X, Y), verbose=0)
    assert made.step_count == 0
    assert made.step(X, Y) > 0


def test_a_program_that_another_thread_forgot_is_made_again(monkeypatch):
    made, whole = trainer(), trainer()
    ensure, first = made.session._ensure, []

    def forgets(*args):
        new = ensure(*args)
        if not first:
            first.append(1)
            made.session._programs.clear()
        return new

    monkeypatch.setattr(made.session, "_ensure", forgets)
    for each in (made, whole):
        each.fit((X, Y), batch_size=16, epochs=2, verbose=0)
    assert first and snapshot(made) == snapshot(whole)


# Torn parameters


class Torn(Around):
    """Replicas of which one has ended in the middle of an update."""

    def __init__(self, made):
        super().__init__(made, torn=True, stop=made._session._stop_fast_path)
        self.stop()  # the fast path asks the native replicas, which are whole

    def chunk(self, *args):
        if self.torn:
            self.stop()
            raise gr.GradringError("the parameters are torn")
        return self.inner.chunk(*args)

    def mend(self):
        self.inner.mend()
        self.torn = False


@pytest.mark.parametrize("way", ["load", "state", "reset", "resume"])
def test_torn_parameters_are_not_saved_and_a_load_heals_them(tmp_path, way):
    made, whole = trainer(2), trainer(2)
    for each in (made, whole):
        each.step(X, Y)
    made.save(tmp_path / "sound")
    state = made.state_dict()
    Torn(made)
    made.params["0.weight"][...] += 1
    torn = {name: array.copy() for name, array in made.params.items()}
    calls = [lambda: made.save(tmp_path / "torn"), made.state_dict, lambda: made.step(X, Y)]
    calls += [lambda: made.fit((X, Y), verbose=0), lambda: made.fit(iter([(X, Y)]), verbose=0)]
    for refused in calls:
        with pytest.raises(gr.GradringError, match="parameters are torn"):
            refused()
    assert all(np.array_equal(array, torn[name]) for name, array in made.params.items())
    made.load(tmp_path / "sound", weights_only=True)  # the optimizer's state is still torn
    with pytest.raises(gr.GradringError, match="torn"):
        made.step(X, Y)
    assert not (tmp_path / "torn").exists()
    if way == "load":
        made.load(tmp_path / "sound")
    elif way == "state":
        made.load_state_dict(state)
    elif way == "reset":
        for each in (made, whole):
            each.reset(2)
    fit = {"resume": tmp_path / "sound"} if way == "resume" else {}
    for each in (made, whole):
        each.fit((X, Y), batch_size=16, verbose=0, **(fit if each is made else {}))
    made.save(tmp_path / "healed")
    assert snapshot(made) == snapshot(whole)


# Files that are saved within a group of accumulated batches


BATCHES = [(0, 17), (17, 18), (18, 31), (31, 33), (33, 40), (3, 30), (2, 9)]  # some replicas have no rows in some


def stepped(made, batches):
    for begin, end in batches:
        made.step(X[begin:end], Y[begin:end])
    return made


@pytest.mark.parametrize("replicas", [1, 3, 5])
@pytest.mark.parametrize("count", [2, 4])
def test_a_resume_within_a_group(tmp_path, replicas, count):
    broken = stepped(trainer(3, accumulate=3), BATCHES[:count])
    broken.save(tmp_path / "a")
    whole = stepped(trainer(3, accumulate=3), BATCHES)
    loaded, other = trainer(replicas, accumulate=3), trainer(replicas, accumulate=3)
    loaded.load(tmp_path / "a")
    other.load_state_dict(broken.state_dict())
    assert snapshot(loaded) == snapshot(other)
    for again in (loaded, other):
        stepped(again, BATCHES[count:])
        assert again.step_count == whole.step_count == 2 and again.state_dict()["pending"] == 1
        if replicas == 3:
            assert snapshot(again) == snapshot(whole)
        for name, array in whole.params.items():
            np.testing.assert_allclose(again.params[name], array, rtol=0, atol=1e-12)


def test_the_group_of_one_replica_goes_on_with_several_and_back(tmp_path):
    made, whole = trainer(1, accumulate=6), stepped(trainer(1, accumulate=6), BATCHES[:6])
    for replicas, batch in zip((2, 4, 3, 3, 1), BATCHES, strict=False):
        stepped(made, [batch]).save(tmp_path / "a")
        made = trainer(replicas, accumulate=6)
        made.load(tmp_path / "a")
    stepped(made, BATCHES[5:6])
    assert made.step_count == 1
    for name, array in whole.params.items():
        np.testing.assert_allclose(made.params[name], array, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("training/gradients/replica 1/0.bias"),
        lambda t: t.pop("training/gradients/0.bias"),
        lambda t: t.update({"training/gradients/replica 1/0.bias": np.zeros(3)}),
        lambda t: t.update({"training/gradients/replica 1/9.bias": np.zeros(3)}),
        lambda t: t.update({"training/gradients/replica 999/0.bias": np.zeros(11)}),
        lambda t: t.update({"training/gradients/replica 01/0.bias": np.zeros(11)}),
    ],
)
def test_planes_that_cannot_be_change_nothing(tmp_path, change):
    stepped(trainer(2, accumulate=3), BATCHES[:1]).save(tmp_path / "a")
    tensors, metadata = checkpoint.read(tmp_path / "a")
    change(tensors)
    checkpoint.write(tmp_path / "a", tensors, metadata)
    for replicas in (1, 2, 3):
        made = trainer(replicas, accumulate=3)
        before = snapshot(made)
        with pytest.raises(gr.CheckpointMismatch, match="the gradient of .*bias"):
            made.load(tmp_path / "a")
        assert snapshot(made) == before
