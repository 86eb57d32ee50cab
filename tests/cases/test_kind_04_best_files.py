"""Callbacks and files: the parameters of the best epoch, and places that cannot be written."""

import itertools
import os

import numpy as np
import pytest

import gradring as gr
from cases.callbacks_data import TEST, TRAIN, stop, trainer

# The parameters of the best epoch


class Worse(gr.callbacks.Callback):
    """From its epoch on, spoils the parameters before each validation, so that no later epoch is better."""

    def __init__(self, first):
        self.first = first

    def on_report(self, run):
        if run.epoch >= self.first:
            run.trainer.params["2.bias"] = [50.0, -50.0, 0.0]


class Interrupt(gr.callbacks.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, run):
        if run.epoch == self.epoch:
            raise KeyboardInterrupt


def good_then_worse(folder, more=(), **options):
    parts = [stop(restore_best=True), Worse(3), gr.callbacks.Checkpoint(folder / "m{epoch}"), *more]
    made = trainer()
    made.fit(TRAIN, 4, validate=TEST, callbacks=parts, verbose=False, **options)
    return made, parts[0]


def test_an_extended_run_restores_the_best_epoch_of_the_run_before_it(tmp_path):
    first, stopper = good_then_worse(tmp_path)
    assert 0 <= stopper.best_epoch < 3
    best = {name: array.copy() for name, array in first.params.items()}
    first.save(tmp_path / "by hand")
    for file in ("m4", "by hand"):
        again, once_more = trainer(), stop(restore_best=True)
        parts = [once_more, Worse(0), gr.callbacks.Checkpoint(tmp_path / "n")]
        history = again.fit(TRAIN, 6, validate=TEST, callbacks=parts, resume=tmp_path / file, verbose=False)
        assert once_more.best_epoch == stopper.best_epoch and len(history) > 4
        for name, array in best.items():
            np.testing.assert_array_equal(again.params[name], array)
        assert again.evaluate(TEST)["loss"] == pytest.approx(min(history.metrics["val_loss"]), rel=1e-6)


def test_an_interrupted_run_keeps_its_parameters_and_the_best_ones(tmp_path):
    whole, _ = good_then_worse(tmp_path)
    made = trainer()
    parts = [stop(restore_best=True), Worse(3), Interrupt(3)]
    with pytest.raises(KeyboardInterrupt):
        made.fit(TRAIN, 8, validate=TEST, callbacks=parts, verbose=False)
    assert made.params["2.bias"][0] > 40  # those of its last step
    made.save(tmp_path / "after")
    again = trainer()
    parts = [stop(restore_best=True), Worse(0)]
    again.fit(TRAIN, 6, validate=TEST, callbacks=parts, resume=tmp_path / "after", verbose=False)
    for name, array in whole.params.items():
        np.testing.assert_array_equal(again.params[name], array)


def test_a_state_without_the_best_parameters_is_refused(tmp_path):
    made = trainer()
    made.fit(TRAIN, 2, validate=TEST, callbacks=[stop(), gr.callbacks.Checkpoint(tmp_path / "m")], verbose=False)
    one, before, saves = trainer(), (tmp_path / "m").read_bytes(), gr.callbacks.Checkpoint(tmp_path / "m")
    with pytest.raises(gr.CheckpointMismatch, match=r"EarlyStop.*lacks the parameters of its best epoch.*restore_best"):
        one.fit(
            TRAIN, 4, validate=TEST, callbacks=[stop(restore_best=True), saves], resume=tmp_path / "m", verbose=False
        )
    assert (tmp_path / "m").read_bytes() == before
    trainer().fit(TRAIN, 4, validate=TEST, callbacks=[stop(), saves], resume=tmp_path / "m", verbose=False)
    other = stop(restore_best=True)
    other.load_state_dict({"metric": "val_loss", "best": np.nan, "best_epoch": -1})  # before its first epoch


# Places that cannot be written


def nowhere(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    return [
        tmp_path / "pipe",
        tmp_path / "link",
        tmp_path / "folder",
        tmp_path / "file" / "m",
        "/proc/m",
        "/proc/self/m",
    ]


@pytest.mark.parametrize("callback", [gr.callbacks.Checkpoint, gr.callbacks.Trace])
def test_a_place_that_cannot_be_written_is_refused_before_the_first_step(callback, tmp_path):
    for path in nowhere(tmp_path):
        made = trainer()
        with pytest.raises(OSError, match=r"a named pipe|is a folder|is not a folder that can be|no folder .*; make it first"):
            made.fit(TRAIN, callbacks=[callback(path)], verbose=False)
        assert made.step_count == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link", "pipe"]


def scores(*values):
    """A metric with these values, epoch by epoch."""
    left = iter(values)

    def score(predictions, targets):
        return next(left)

    return score


def scored(*values):
    model = gr.nn.Sequential(gr.nn.Linear(4, 3)).init(1)
    return gr.Trainer(model, optimizer=gr.optim.SGD(1e-2), metrics=[scores(*values)])


@pytest.mark.parametrize("swapped", [False, True])
def test_the_best_file_stays_though_two_checkpoints_change_places(swapped, tmp_path):
    def both():
        made = [
            gr.callbacks.Checkpoint(tmp_path / "last"),
            gr.callbacks.Checkpoint(tmp_path / "best", monitor="score", mode="max"),
        ]
        return made[::-1] if swapped and os.path.exists(tmp_path / "best") else made

    first = scored(5.0, 9.0)
    first.fit(TRAIN, 2, callbacks=both(), verbose=False)
    best = {name: array.copy() for name, array in first.params.items()}
    again = scored(1.0, 2.0)
    again.fit(TRAIN, 4, callbacks=both(), resume="auto", verbose=False)
    for name, array in gr.load(tmp_path / "best").params.items():
        np.testing.assert_array_equal(array, best[name])
    assert gr.load(tmp_path / "last").params["0.bias"].tobytes() == again.params["0.bias"].tobytes()


@pytest.mark.parametrize("kind", [gr.callbacks.EarlyStop, gr.callbacks.ReduceLROnPlateau])
def test_callbacks_of_one_class_find_their_states_in_any_order(kind, tmp_path):
    def made():
        return {name: kind(name, patience=9) for name in ("loss", "accuracy", "val_loss")}

    def fit(epochs, callbacks):
        both = [*callbacks, gr.callbacks.Checkpoint(tmp_path / "m")]
        trainer().fit(TRAIN, epochs, validate=TEST, callbacks=both, resume="auto", verbose=False)

    first = made()
    fit(3, first.values())
    told = {name: callback.state_dict() for name, callback in first.items()}
    for order in itertools.permutations(told):
        later = made()
        fit(3, [later[name] for name in order])
        assert {name: later[name].state_dict() for name in told} == told


def test_a_callback_of_another_metric_takes_no_state_of_others(tmp_path):
    def fit(*metrics):
        callbacks = [gr.callbacks.EarlyStop(name) for name in metrics]
        trainer().fit(TRAIN, 2, callbacks=[*callbacks, gr.callbacks.Checkpoint(tmp_path / "m")], resume="auto", verbose=False)

    fit("loss", "accuracy")
    with pytest.raises(gr.errors.CheckpointMismatch, match="the state is of metric 'loss', this one has 'seconds'"):
        fit("accuracy", "seconds")


class Tally(gr.callbacks.Callback):
    """Counts epochs; without any, it has no state."""

    def __init__(self, counts=True):
        self.counts, self.epochs = counts, 0

    def on_epoch_end(self, run):
        self.epochs += self.counts

    def state_dict(self):
        return {"epochs": self.epochs} if self.epochs else {}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]


def test_a_callback_without_a_state_takes_none_of_another_of_its_class(tmp_path):
    def fit(epochs):
        idle, busy = Tally(counts=False), Tally()
        callbacks = [idle, busy, gr.callbacks.Checkpoint(tmp_path / "m")]
        trainer().fit(TRAIN, epochs, callbacks=callbacks, resume="auto", verbose=False)
        return idle.epochs, busy.epochs

    assert [fit(2), fit(5)] == [(0, 2), (0, 5)]


@pytest.mark.parametrize("restore_best", [False, True])
def test_a_run_that_had_stopped_early_does_not_train_again_when_it_is_resumed(restore_best, tmp_path):
    def fit(patience):
        made = scored(5.0, 7.0, *[1.0] * 20)
        early = gr.callbacks.EarlyStop("score", patience, mode="max", restore_best=restore_best)
        made.fit(TRAIN, 20, callbacks=[gr.callbacks.Checkpoint(tmp_path / "m"), early], resume="auto", verbose=False)
        return made, early

    first, _ = fit(3)
    assert first.epoch == 5
    for _ in range(2):
        again, early = fit(3)
        assert (again.epoch, again.step_count, early.best, early.best_epoch) == (5, first.step_count, 7.0, 1)
        np.testing.assert_array_equal(again.params["0.weight"], first.params["0.weight"])
    assert fit(6)[0].epoch == 8, "a larger patience continues"


def test_a_run_that_had_stopped_early_goes_on_if_it_gets_more_epochs(tmp_path):
    def fit(epochs):
        made = scored(5.0, *[1.0] * 20)
        parts = [gr.callbacks.Checkpoint(tmp_path / "m"), gr.callbacks.EarlyStop("score", 2, mode="max")]
        made.fit(TRAIN, epochs, callbacks=parts, resume="auto", verbose=False)
        return made.epoch

    assert [fit(9), fit(9), fit(3), fit(10)] == [3, 3, 3, 4]


def test_keep_counts_the_files_of_a_folder_that_was_moved(tmp_path):
    os.mkdir(tmp_path / "a")
    made = gr.callbacks.Checkpoint(tmp_path / "a" / "{epoch}", keep=2)
    trainer().fit(TRAIN, 3, callbacks=[made], verbose=False)
    os.rename(tmp_path / "a", tmp_path / "b")
    again = gr.callbacks.Checkpoint(tmp_path / "b" / "{epoch}", keep=2)
    trainer().fit(TRAIN, 5, callbacks=[again], resume="auto", verbose=False)
    assert sorted(os.listdir(tmp_path / "b")) == ["4", "5"]
