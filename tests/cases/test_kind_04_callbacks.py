"""Kind 4: callbacks are part of the state."""

import itertools
import os
import re

import numpy as np
import pytest

import gradring as gr
from cases.callbacks_data import TEST, TRAIN, X, Y, best_epoch, stop, trainer
from gradring import checkpoint


def crash(folder, epoch):
    """Trains, and fails after that epoch, whose file then is the newest."""

    class Crash(gr.callbacks.Callback):
        def on_report(self, run):
            if run.trainer.epoch == epoch:
                raise ZeroDivisionError

    parts = [stop(restore_best=True), gr.callbacks.Checkpoint(folder / "m{epoch}"), Crash()]
    with pytest.raises(ZeroDivisionError):
        trainer().fit(TRAIN, 200, validate=TEST, callbacks=parts, verbose=False)


class Count(gr.callbacks.Callback):
    """A callback of the user's, with a state."""

    def __init__(self):
        self.epochs, self.trace = 0, np.zeros(3)

    def on_epoch_end(self, run):
        self.epochs += 1
        self.trace[self.epochs % 3] += 1

    def state_dict(self):
        return {"epochs": self.epochs, "trace": self.trace}

    def load_state_dict(self, state):
        self.epochs, self.trace = state["epochs"], state["trace"]


class Remembers(gr.callbacks.Callback):
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = dict(state)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("restore_best", [False, True])
def test_the_file_is_the_state_in_which_fit_ends(order, restore_best, tmp_path):
    path = tmp_path / "m"
    parts = [gr.callbacks.Checkpoint(path, every=50), stop(restore_best=restore_best), gr.callbacks.Csv(tmp_path / "c")]
    made = trainer()
    history = made.fit(TRAIN, 200, validate=TEST, callbacks=[parts[i] for i in order], verbose=False)
    assert len(history) < 200, "the run must have stopped early"
    again = trainer()
    again.load(path)
    for name, array in made.params.items():
        np.testing.assert_array_equal(again.params[name], array)
    want = history.metrics["val_loss"][best_epoch(history) if restore_best else -1]
    assert again.evaluate(TEST)["loss"] == pytest.approx(want, rel=1e-6)
    assert again.epoch == len(history)


def test_without_an_early_stop_every_counts(tmp_path):
    made = trainer()
    made.fit(TRAIN, 7, callbacks=[gr.callbacks.Checkpoint(tmp_path / "{epoch}", every=3)], verbose=False)
    assert sorted(os.listdir(tmp_path)) == ["3", "6", "7"]


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("restore_best", [False, True])
def test_a_run_resumed_before_an_early_stop_ends_as_the_whole_one(before, restore_best, tmp_path):
    whole = trainer()
    history = whole.fit(TRAIN, 200, validate=TEST, callbacks=[stop(restore_best=restore_best)], verbose=False)
    ends = len(history)
    first = trainer()
    parts = [stop(restore_best=restore_best), gr.callbacks.Checkpoint(tmp_path / "m{epoch}")]
    first.fit(TRAIN, ends - before, validate=TEST, callbacks=parts, verbose=False)
    # The file of that epoch, as an interrupted run leaves it: the last one has the best weights back.
    second = trainer()
    file = tmp_path / f"m{ends - before}"
    if restore_best:
        crash(tmp_path, ends - before)
    stopper = stop(restore_best=restore_best)
    again = second.fit(TRAIN, 200, validate=TEST, callbacks=[gr.callbacks.Checkpoint(tmp_path / "m{epoch}"), stopper],
                       resume=file, verbose=False)  # fmt: skip
    assert len(again) == ends and stopper.best_epoch == best_epoch(history)
    for name, array in whole.params.items():
        np.testing.assert_array_equal(second.params[name], array)


def test_a_file_of_the_best_epoch(tmp_path):
    made = trainer()
    history = made.fit(TRAIN, 30, validate=TEST, verbose=False,
                       callbacks=[gr.callbacks.Checkpoint(tmp_path / "best", monitor="val_loss"),
                                  gr.callbacks.Checkpoint(tmp_path / "last")])  # fmt: skip
    best, last = trainer(), trainer()
    best.load(tmp_path / "best")
    last.load(tmp_path / "last")
    assert best_epoch(history) < 29
    assert best.epoch == best_epoch(history) + 1 and last.epoch == 30
    assert best.evaluate(TEST)["loss"] == pytest.approx(min(history.metrics["val_loss"]))


def test_the_best_so_far_is_remembered(tmp_path):
    def parts():
        return [
            gr.callbacks.Checkpoint(tmp_path / "best", monitor="val_loss"),
            gr.callbacks.Checkpoint(tmp_path / "last"),
        ]

    trainer().fit(TRAIN, 30, validate=TEST, callbacks=parts(), verbose=False)
    best = (tmp_path / "best").read_bytes()
    history = trainer().fit(TRAIN, 32, validate=TEST, callbacks=parts(), resume="auto", verbose=False)
    assert best_epoch(history) < 30 and (tmp_path / "best").read_bytes() == best


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (lambda folder: gr.callbacks.EarlyStop("val_acc"), "did you mean 'val_accuracy'"),
        (lambda folder: gr.callbacks.EarlyStop("los"), "did you mean 'loss'"),
        (lambda folder: gr.callbacks.Checkpoint(folder / "m", monitor="val_los"), "did you mean 'val_loss'"),
        (lambda folder: gr.callbacks.EarlyStop("f1"), "there is no metric 'f1', only"),
    ],
)
def test_a_metric_that_no_epoch_will_have_is_found_before_the_first_step(part, words, tmp_path):
    made = trainer()
    with pytest.raises(ValueError, match=words):
        made.fit(TRAIN, 3, validate=TEST, callbacks=[part(tmp_path)], verbose=False)
    assert made.step_count == 0


def test_no_validation_is_found_before_the_first_step():
    made = trainer()
    with pytest.raises(ValueError, match="give fit validate="):
        made.fit(TRAIN, 3, callbacks=[gr.callbacks.EarlyStop()], verbose=False)
    assert made.step_count == 0
    made.fit(TRAIN, 1, callbacks=[gr.callbacks.EarlyStop("accuracy")], verbose=False)


@pytest.mark.parametrize(
    "wrong", [(X[:, :3], Y), (X, Y[:, None] * np.ones((1, 2), int)), (X, Y.astype(float)), gr.Loader((X[:, :2], Y), 4)]
)
def test_validation_data_of_another_form_are_found_before_the_first_step(wrong):
    made = trainer()
    with pytest.raises((ValueError, TypeError)):
        made.fit(TRAIN, 3, validate=wrong, verbose=False)
    assert made.step_count == 0


def test_resume_without_a_file(tmp_path):
    made = trainer()
    with pytest.raises(FileNotFoundError, match=r'there is no file .*m\.safetensors.*resume="auto"'):
        made.fit(TRAIN, 3, resume=tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="needs a gr.callbacks.Checkpoint without monitor"):
        made.fit(TRAIN, 3, resume="auto")


@pytest.mark.parametrize("name", ["m", "m-{epoch}", "e{epoch:03d}-s{step}.safetensors", "lr={{0.1}}-{epoch}"])
def test_resume_auto(name, tmp_path):
    def run(epochs):
        made = trainer()
        made.fit(TRAIN, epochs, callbacks=[gr.callbacks.Checkpoint(str(tmp_path / name))], resume="auto", verbose=False)
        return made

    (tmp_path / "other.safetensors").write_bytes(b"something else")
    assert run(2).epoch == 2 and run(5).epoch == 5
    whole = trainer()
    whole.fit(TRAIN, 6, verbose=False)
    np.testing.assert_array_equal(run(6).params["0.weight"], whole.params["0.weight"])


def test_a_callback_of_ones_own(tmp_path):
    path = tmp_path / "m"
    trainer().fit(TRAIN, 4, callbacks=[gr.callbacks.Checkpoint(path), Count()], verbose=False)
    count = Count()
    trainer().fit(TRAIN, 6, callbacks=[count, gr.callbacks.Checkpoint(path)], resume=path, verbose=False)
    assert count.epochs == 6 and count.trace.sum() == 6
    assert not [name for name in trainer().load(path) if name.startswith("callbacks/")]


def test_two_of_a_class_keep_their_own(tmp_path):
    path = tmp_path / "m"

    def two():
        return [
            gr.callbacks.EarlyStop("loss", 50),
            gr.callbacks.EarlyStop("accuracy", 50),
            gr.callbacks.Checkpoint(path),
        ]

    trainer().fit(TRAIN, 4, callbacks=two(), verbose=False)
    loss, accuracy, saver = two()
    trainer().fit(TRAIN, 4, callbacks=[saver, loss, accuracy], resume=path, verbose=False)
    assert loss.best < 1.5 and 0 < accuracy.best <= 1 and loss.best_epoch >= 0
    best = loss.best, accuracy.best
    trainer().fit(TRAIN, 4, callbacks=[accuracy, loss, saver], resume=path, verbose=False)
    assert (loss.best, accuracy.best) == best


def test_what_a_callback_remembers_is_not_lost_in_silence(tmp_path):
    path = tmp_path / "m"
    trainer().fit(TRAIN, 2, callbacks=[gr.callbacks.Checkpoint(path), Count()], verbose=False)
    made = trainer()
    with pytest.raises(gr.CheckpointMismatch, match="the state of Count, which is not among callbacks"):
        made.fit(TRAIN, 4, callbacks=[gr.callbacks.Checkpoint(path)], resume=path, verbose=False)
    made.load(path)  # the way out that the error names
    made.fit(TRAIN, 1, verbose=False)


@pytest.mark.parametrize("state", [{"a": object()}, {"a": {1, 2}}, [1], {"a": 1j}])
def test_a_state_that_no_file_can_hold(state, tmp_path):
    class Odd(gr.callbacks.Callback):
        def state_dict(self):
            return state

    with pytest.raises(TypeError, match="Odd.*state_dict"):
        trainer().fit(TRAIN, 1, callbacks=[Odd(), gr.callbacks.Checkpoint(tmp_path / "m")], verbose=False)


def test_a_file_of_a_run_with_callbacks_is_as_good_as_any(tmp_path):
    path = tmp_path / "m"
    trainer().fit(
        TRAIN, 2, callbacks=[stop(metric="loss", restore_best=True), gr.callbacks.Checkpoint(path)], verbose=False
    )
    tensors, metadata = checkpoint.read(path)
    assert re.search("EarlyStop", metadata["callbacks"])
    assert {"0.weight", "optimizer/m.0.weight"} <= tensors.keys()
    made = trainer()
    assert "0.weight" in made.load(path)
    made.save(path)  # what it read of them goes on to the next file
    assert checkpoint.read(path)[1]["callbacks"] == metadata["callbacks"]


@pytest.mark.parametrize("wrong", [gr.callbacks.Csv, "EarlyStop", print, None])
def test_what_is_no_callback(wrong):
    with pytest.raises(TypeError, match=r"callbacks must be of gr\.callbacks"):
        trainer().fit(TRAIN, callbacks=[wrong])
    if not isinstance(wrong, str):
        with pytest.raises(TypeError, match="callbacks must be a list"):
            trainer().fit(TRAIN, callbacks=wrong)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("fails", [False, True])
def test_a_callback_that_fails_at_the_end_takes_nothing_from_the_others(place, fails, tmp_path):
    class Bad(gr.callbacks.Callback):
        def on_fit_end(self, run):
            raise OSError("no room for the report")

    class Ends(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            if fails:
                raise ZeroDivisionError("an epoch")

    parts = [gr.callbacks.Csv(tmp_path / "c"), gr.callbacks.Checkpoint(tmp_path / "m", every=50)]
    parts.insert(place, Bad())
    made = trainer()
    with pytest.raises(ZeroDivisionError if fails else OSError, match="an epoch" if fails else "no room") as raised:
        made.fit(TRAIN, 2, callbacks=[*parts, Bad(), Ends()], verbose=False)
    assert all(part._file is None for part in parts if isinstance(part, gr.callbacks.Csv))
    assert made.callbacks == () and (tmp_path / "m").exists() is not fails
    if hasattr(raised.value, "__notes__"):
        assert any("no room for the report" in note for note in raised.value.__notes__)
    if not fails:
        again = trainer()
        again.load(tmp_path / "m")
        assert again.epoch == 2


def test_a_state_that_is_none_is_told_and_the_run_still_ends(tmp_path):
    class Old(gr.callbacks.Callback):
        def state_dict(self):
            return None

    made = trainer()
    with pytest.raises(TypeError, match=r"\[.*Old\] state_dict must return a dict"):
        made.fit(TRAIN, 1, callbacks=[Old()], verbose=False)
    assert made.callbacks == () and made.epoch == 1
    made.fit(TRAIN, 1, verbose=False)


def test_a_state_of_numpy_numbers_is_kept(tmp_path):
    model = gr.nn.Linear(2, 2)
    x, y = np.ones((4, 2), np.float32), np.zeros(4, int)
    state = {"best": np.float32(0.5), "epoch": np.int64(3), "on": np.bool_(True)}
    last = gr.callbacks.Checkpoint(tmp_path / "a")
    gr.Trainer(model).fit((x, y), callbacks=[Remembers(state), last], verbose=False)
    again = Remembers({})
    gr.Trainer(gr.nn.Linear(2, 2)).fit((x, y), 1, callbacks=[again, last], resume=tmp_path / "a", verbose=False)
    assert again.state == {"best": 0.5, "epoch": 3, "on": True}
    with pytest.raises(TypeError, match=r"\[Remembers\] state_dict has the key 3: keys must be texts"):
        gr.Trainer(gr.nn.Linear(2, 2)).fit((x, y), callbacks=[Remembers({3: 1}), last], verbose=False)
