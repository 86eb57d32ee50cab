"""``dtype="float16"`` with ``accumulate`` for models with running statistics: an overflow skips a whole group of batches, and
the statistics are then those of before the group."""

import numpy as np
import pytest

import gradring as gr
from gradring.graph.spec import check
from narrow import data, model

nn = gr.nn


def trainer(accumulate, optimizer=None, made=None, **options):
    made = model(norm=True) if made is None else made
    return gr.Trainer(made, optimizer=optimizer or gr.optim.AdamW(1e-3), dtype="float16", accumulate=accumulate, **options)


def with_scale(trained, scale):
    """Set the scale as a file does."""
    trained.load_state_dict({**trained.state_dict(), "loss_scale": scale, "good_steps": 0})
    return trained


def batches(count, rows=24, seed=0):
    x, y = data(rows * count, seed=seed)
    return [(x[at : at + rows], y[at : at + rows]) for at in range(0, len(x), rows)]


def overflowing(x, value=np.inf):
    x = x.copy()
    x[3, 2] = value
    return x


def buffers(trained):
    return {name: np.array(array) for name, array in trained.buffers.items()}


def kept(trained):
    arrays = {**trained.params, **trained.buffers, **{f"state {k}": v for k, v in trained.session.state.items()}}
    return {name: np.asarray(array).tobytes() for name, array in arrays.items()}, trained.step_count


@pytest.mark.parametrize("value", [np.inf, np.nan, 70000.0])
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"nonfinite": "ignore"}], ids=["plain", "clip", "unchecked"])
def test_an_overflow_anywhere_in_a_group_leaves_what_was_before_it(place, value, options):
    trained = trainer(3, **options)
    given = batches(9)
    for x, y in given[:3]:
        trained.step(x, y)
    before, scale = kept(trained), trained.loss_scale
    assert before[1] == 1
    for number, (x, y) in enumerate(given[3:6]):
        trained.step(overflowing(x, value) if number == place else x, y)
    assert kept(trained) == before
    assert trained.loss_scale == scale / 2 and trained.session.pending == 0
    for x, y in given[6:]:
        trained.step(x, y)
    after, count = kept(trained)
    assert count == 2 and all(after[name] != before[0][name] for name in after)
    assert all(np.isfinite(array).all() for array in buffers(trained).values())


def test_a_run_with_a_skipped_group_is_the_run_without_it():
    given, runs = batches(9, seed=3), []
    for skips in (False, True):
        trained = trainer(3, seed=5)
        for number, (x, y) in enumerate(given):
            if 3 <= number < 6 and not skips:
                continue
            trained.step(overflowing(x) if number == 4 else x, y)
        runs.append((kept(trained), trained.loss_scale))
    (plain, first), (skipped, scale) = runs
    assert scale == first / 2
    # The gradients of the second update have another power of two as their scale, and few of them are so small that it shows.
    assert skipped[1] == plain[1] == 2
    for name, array in plain[0].items():
        np.testing.assert_allclose(np.frombuffer(skipped[0][name], "f4"), np.frombuffer(array, "f4"), rtol=1e-4, atol=1e-6)


def test_the_statistics_of_a_group_are_those_of_its_batches_one_after_another():
    """With a learning rate of zero, statistics are all that changes, and groups change them as single batches do."""
    found = []
    for accumulate in (1, 2, 3, 6):
        trained = trainer(accumulate, gr.optim.SGD(0.0))
        for x, y in batches(6):
            trained.step(x, y)
        found.append({name: array.tobytes() for name, array in buffers(trained).items()})
    assert all(other == found[0] for other in found[1:])
    assert len(found[0]) == 2


def test_statistics_wait_for_the_end_of_their_group():
    trained = trainer(3)
    first = buffers(trained)
    for x, y in batches(2):
        trained.step(x, y)
    assert trained.session.pending == 2
    for name, array in buffers(trained).items():
        np.testing.assert_array_equal(array, first[name])
    trained.session.flush()
    assert trained.step_count == 1
    assert all((array != first[name]).any() for name, array in buffers(trained).items())


def test_an_incomplete_group_at_the_end_of_an_epoch_moves_the_statistics():
    x, y = data(24 * 5)
    runs = []
    for accumulate in (5, 3):  # one group, and one and two thirds
        trained = trainer(accumulate, gr.optim.SGD(0.0))
        trained.fit(gr.Loader((x, y), 24), epochs=1, verbose=0)
        runs.append({name: array.tobytes() for name, array in buffers(trained).items()})
    assert runs[0] == runs[1]


@pytest.mark.parametrize("form", ["state", "file"])
@pytest.mark.parametrize("overflows", [False, True])
def test_a_resumed_group_goes_on_with_its_statistics(form, overflows, tmp_path):
    given = batches(6, seed=8)
    if overflows:
        given[4] = overflowing(given[4][0]), given[4][1]
    whole = trainer(3, seed=2)
    for x, y in given:
        whole.step(x, y)
    part = trainer(3, seed=2)
    for x, y in given[:4]:
        part.step(x, y)
    other = trainer(3, made=model(norm=True))
    if form == "state":
        other.load_state_dict(part.state_dict())
    else:
        part.save(tmp_path / "half.safetensors")
        other.load(tmp_path / "half.safetensors")
    assert other.session.pending == 1
    for x, y in given[4:]:
        other.step(x, y)
    assert kept(other) == kept(whole)
    assert other.loss_scale == whole.loss_scale


def test_a_bad_label_in_a_group_keeps_what_came_before_it():
    given = batches(3)
    runs = []
    for bad in (False, True):
        trained = trainer(3, seed=2)
        for number, (x, y) in enumerate(given):
            if bad and number == 1:
                with pytest.raises(ValueError, match="label"):
                    float(trained.step(x, np.full_like(y, 99)))
            trained.step(x, y)
        runs.append(kept(trained))
    assert runs[0][0].keys() == runs[1][0].keys() and runs[0] == runs[1]


def test_at_the_least_scale_a_batch_that_overflows_is_an_error_and_changes_nothing():
    given, runs = batches(4), []
    for bad in (False, True):
        trained = with_scale(trainer(2, seed=2), 1)
        for x, y in given[:3]:
            trained.step(x, y)
        before = kept(trained)
        if bad:
            with pytest.raises(gr.NonFinite):
                float(trained.step(overflowing(given[3][0]), given[3][1]))
            assert kept(trained) == before and trained.session.pending == 1
        trained.step(*given[3])
        runs.append(kept(trained))
    assert runs[0] == runs[1] and runs[0][1] == 2


def test_gradients_that_overflow_at_the_least_scale_end_their_group():
    """The loss is finite, and the sum of squares of the gradients is not: the whole group is given up."""
    made = nn.Sequential(nn.Linear(70, 32), nn.BatchNorm1d(32), nn.Linear(32, 10))
    trained = with_scale(gr.Trainer(made, loss="mse", optimizer=gr.optim.SGD(1e-3), dtype="float16", accumulate=2, seed=1), 1)
    x, y = data(24)[0], np.ones((24, 10), np.float32)
    for _ in range(2):
        trained.step(x, y)
    before = kept(trained)
    trained.step(x, y)
    with pytest.raises(gr.NonFinite):
        float(trained.step(x, 1e8 * y))
    assert kept(trained) == before and trained.session.pending == 0
    for _ in range(2):
        trained.step(x, y)
    assert trained.step_count == 2 and all(np.isfinite(array).all() for array in buffers(trained).values())


def test_several_norms_and_a_group_of_one_batch(monkeypatch):
    monkeypatch.setenv("GRADRING_CHECK", "1")
    layers = nn.Linear(70, 33), nn.BatchNorm1d(33), nn.ReLU(), nn.Linear(33, 17), nn.BatchNorm1d(17), nn.Linear(17, 10)
    trained = with_scale(trainer(2, made=nn.Sequential(*layers)), 1024)
    given = batches(4)
    for x, y in given[:3]:
        trained.step(x, y)
    trained.session.flush()  # a group of one batch
    assert trained.step_count == 2
    before = kept(trained)
    trained.step(overflowing(given[3][0]), given[3][1])
    trained.session.flush()
    assert kept(trained) == before
    graph = trained.plan().graph
    check(graph)
    copies = [node.when for node in graph.nodes if node.op == "copy" and node.phase == "update"]
    assert copies == ["first"] * 4 + ["last"] * 4


def test_other_trainings_have_no_copies_of_statistics():
    for options in ({"dtype": "bfloat16", "accumulate": 2}, {"dtype": "float16"}):
        trained = gr.Trainer(model(norm=True), optimizer=gr.optim.SGD(0.1), **options)
        trained.step(*data(32))
        assert "moved" not in trained.plan().graph.values
