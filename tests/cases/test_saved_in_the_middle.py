"""Files of runs that ended within an epoch: what they may say and lack, and which trainers can go on from them."""

import numpy as np
import pytest

import gradring as gr
from cases.resumed import BATCH, At, X, Y, a_report_after_each_batch, raise_stop, spread, trainer  # noqa: F401
from gradring import checkpoint
from helpers import Stop, snapshot


@pytest.fixture
def saved(tmp_path):
    made = trainer("arrays", accumulate=3, metrics=["accuracy", spread])
    with pytest.raises(Stop):
        made.fit((X, Y), 2, callbacks=[At(1, 4, tmp_path / "a", raise_stop)], batch_size=BATCH, verbose=False)
    return tmp_path / "a"


def test_a_file_without_sums_is_read(saved):
    """Files that an earlier version wrote have no sums: such an epoch is measured over its rest."""
    tensors, metadata = checkpoint.read(saved)
    tensors = {name: array for name, array in tensors.items() if not name.startswith("training/")}
    for name in ("sums", "pending", "pending_weight"):
        metadata.pop(name)
    checkpoint.write(saved, tensors, metadata)
    made = trainer("arrays", accumulate=3)
    history = made.fit((X, Y), 2, batch_size=BATCH, resume=saved, verbose=False)
    assert np.isfinite(history.metrics["loss"]).all() and made.epoch == 2


def test_other_readers_leave_the_arrays_of_an_unfinished_epoch_out(saved):
    model = gr.load(saved)
    assert set(model.params) == {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}
    made = trainer("arrays")
    assert set(made.load(saved, weights_only=True)) == {*made.params, *made.buffers}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_group_that_does_not_fit_is_refused(saved, accumulate):
    tensors, metadata = checkpoint.read(saved)
    checkpoint.write(saved, tensors, metadata | {"pending": "2"})
    made = trainer("arrays", accumulate=accumulate)
    before = snapshot(made)
    with pytest.raises(
        gr.CheckpointMismatch, match="gradients of 2 batches waited .* give the trainer the same accumulate"
    ):
        made.load(saved)
    assert snapshot(made) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda t, m: m.update(sums="[1]"),
        lambda t, m: m.update(sums='["a", 1, 1, 1, 1, 1, 1, 1]'),
        lambda t, m: m.update(sums="[0, 0, 1.5, 0, 0, 0, 0, 0]"),
        lambda t, m: m.update(sums="[0, 0, -1, 0, 0, 0, 0, 0]"),
        lambda t, m: m.update(sums="[" * 10**5),
        lambda t, m: m.update(sums="{}"),
        lambda t, m: m.update(pending="-1"),
        lambda t, m: m.update(pending_weight="nan"),
        lambda t, m: m.update(pending_weight="many"),
        lambda t, m: t.pop("training/gradients/0.bias"),
        lambda t, m: t.update({"training/gradients/0.bias": np.zeros(3, "f4")}),
        lambda t, m: t.update({"training/gradients/7.bias": np.zeros(3, "f4")}),
        lambda t, m: t.pop("training/epoch/targets"),
        lambda t, m: t.update({"training/epoch/targets": np.zeros(3)}),
        lambda t, m: t.update({"training/epoch/targets": np.array(3.0)}),
        lambda t, m: t.update({"training/other": np.zeros(3)}),
    ],
)
def test_a_file_whose_sums_cannot_be_changes_nothing(saved, change):
    tensors, metadata = checkpoint.read(saved)
    change(tensors, metadata)
    checkpoint.write(saved, tensors, metadata)
    made = trainer("arrays", accumulate=3, metrics=["accuracy", spread])
    before = snapshot(made)
    with pytest.raises((gr.CheckpointCorrupt, gr.CheckpointMismatch), match=r"\[Trainer.load\] .*a: "):
        made.load(saved)
    assert snapshot(made) == before


def test_other_targets_than_before_are_refused(saved):
    made = gr.Trainer(trainer("arrays").model, metrics=[spread], accumulate=3, optimizer=gr.optim.Adam(0.3))
    with pytest.raises(
        ValueError, match=r"\[Trainer.fit\] resume: the epoch had predictions .* resume on the same data"
    ):
        made.fit((X, np.eye(3, dtype="f4")[Y]), 2, batch_size=BATCH, resume=saved, verbose=False)


@pytest.mark.parametrize("route", ["arrays", "own"])
def test_single_steps_within_a_group(tmp_path, route):
    """Saved after each of seven steps, in groups of three: a trainer that loads it goes on as the first one."""
    whole = trainer(route, accumulate=3)
    for number in range(7):
        broken = trainer(route, accumulate=3)
        for i in range(7):
            if i == number:
                broken.save(tmp_path / "a")
                state = broken.state_dict()
                broken, other = trainer(route, accumulate=3), trainer(route, accumulate=3)
                broken.load(tmp_path / "a")
                other.load_state_dict(state)
                assert snapshot(broken) == snapshot(other)
            broken.step(X[i * 5 : i * 5 + 5], Y[i * 5 : i * 5 + 5])
            if number == 0:
                whole.step(X[i * 5 : i * 5 + 5], Y[i * 5 : i * 5 + 5])
        assert snapshot(broken) == snapshot(whole)
        assert broken.state_dict()["pending"] == 1


# The forms of gradients that wait: sums over samples, or, where each batch makes an update, means


def interrupted(accumulate, batches):
    """A trainer with a step of its own that Ctrl-C has ended in the update after these batches."""
    made = trainer("own", accumulate=accumulate)
    for begin, end in batches[:-1]:
        made.step(X[begin:end], Y[begin:end])
    rates = made._session.rates
    with pytest.MonkeyPatch.context() as patch:
        if accumulate == len(batches):
            patch.setattr(rates, "next", raise_interrupt)
            with pytest.raises(KeyboardInterrupt):
                made.step(*(field[slice(*batches[-1])] for field in (X, Y)))
        else:
            made.step(*(field[slice(*batches[-1])] for field in (X, Y)))
    assert made.state_dict()["pending"] == len(batches) and made.step_count == 0
    return made


def raise_interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("saved", "batches", "loading", "fits"),
    [
        (1, [(0, 7)], 1, True),
        (1, [(0, 7)], 2, False),
        (1, [(0, 7)], 3, False),
        (2, [(0, 7)], 1, False),
        (2, [(0, 7)], 3, True),
        (3, [(0, 7)], 2, True),
        (2, [(0, 7), (7, 9)], 2, True),
        (2, [(0, 7), (7, 9)], 3, True),
        (3, [(0, 7), (7, 9)], 1, False),
    ],
)
def test_gradients_that_wait_have_the_form_in_which_they_were_saved(tmp_path, saved, batches, loading, fits):
    broken = interrupted(saved, batches)
    broken.save(tmp_path / "a")
    state = broken.state_dict()
    for way in ("file", "dict"):
        made = trainer("own", accumulate=loading)
        before = snapshot(made)
        if not fits:
            error = gr.CheckpointMismatch if way == "file" else ValueError
            with pytest.raises(error, match="give the trainer the same accumulate"):
                made.load(tmp_path / "a") if way == "file" else made.load_state_dict(state)
            assert snapshot(made) == before
            continue
        made.load(tmp_path / "a") if way == "file" else made.load_state_dict(state)
        whole = trainer("own", accumulate=loading)
        for begin, end in (*batches, (9, 14), (14, 23), (23, 24)):
            whole.step(X[begin:end], Y[begin:end])
        for begin, end in ((9, 14), (14, 23), (23, 24)):
            made.step(X[begin:end], Y[begin:end])
        assert made.step_count == whole.step_count
        assert snapshot(made) == snapshot(whole)


def test_a_file_that_does_not_tell_the_form_has_sums(tmp_path):
    interrupted(2, [(0, 7)]).save(tmp_path / "a")
    tensors, metadata = checkpoint.read(tmp_path / "a")
    metadata.pop("pending_form")
    checkpoint.write(tmp_path / "a", tensors, metadata)
    trainer("own", accumulate=2).load(tmp_path / "a")
    with pytest.raises(gr.CheckpointMismatch, match="a sum over samples, and here a mean waits"):
        trainer("own", accumulate=1).load(tmp_path / "a")
