"""Callbacks, files and options of the command that would be ignored."""

import copy
import pickle

import numpy as np
import pytest

import gradring as gr
from cases.habits import X, Y, trainer
from gradring import checkpoint
from gradring.cli import main

# Callbacks and files


@pytest.mark.parametrize(
    "make",
    [
        gr.callbacks.EarlyStop,
        gr.callbacks.ReduceLROnPlateau,
        lambda metric, **options: gr.callbacks.Checkpoint("m", monitor=metric, **options),
        lambda metric, **options: gr.optim.schedule.plateau(1e-3, metric, **options),
    ],
)
def test_the_direction_of_a_metric_is_not_guessed(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fit(name, **options):
        def metric(predictions, targets):
            return 1.0

        metric.__name__ = name.removeprefix("val_")
        part = make(name, **options)
        watches = isinstance(part, gr.callbacks.Callback)
        made = gr.Trainer(gr.nn.Linear(4, 3), metrics=[metric], optimizer=gr.optim.SGD(0.1 if watches else part))
        made.fit((X, Y), validate=(X, Y), callbacks=[part] if watches else [], verbose=False)

    for name in ("val_auc", "f1", "top_speed"):
        with pytest.raises(ValueError, match=r"does not say whether more of it is better: give mode='max'"):
            fit(name)
        fit(name, mode="max")
    for name in ("val_stop_loss", "balanced_accuracy", "val_rmse", "pixel_error"):
        fit(name)


def test_what_callbacks_would_change_in_vain():
    class Adds(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.metrics["mine"] = 3.0

    class Keeps(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            mine = copy.deepcopy(run.metrics)  # a copy may be changed
            mine["mine"] = 3.0
            assert {**run.metrics, "mine": 3.0} == mine == pickle.loads(pickle.dumps(run.metrics)) | {"mine": 3.0}

    trainer().fit((X, Y), callbacks=[Keeps()], verbose=False)

    class Spells(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.stopp = "enough"

    with pytest.raises(TypeError, match=r"row of the history, and read-only: .*Trainer\(metrics=\[function\]\)"):
        trainer().fit((X, Y), callbacks=[Adds()], verbose=False)
    with pytest.raises(AttributeError, match="did you mean 'stop'"):
        trainer().fit((X, Y), callbacks=[Spells()], verbose=False)


def test_files_that_have_nothing_to_take(tmp_path):
    gr.nn.Sequential(gr.nn.Linear(4, 3)).init(0).save(tmp_path / "model")
    made = trainer()
    with pytest.raises(gr.CheckpointMismatch, match=r"a model alone.*weights_only=True"):
        made.load(tmp_path / "model")
    with pytest.raises(gr.CheckpointMismatch, match=r"a model alone"):
        made.fit((X, Y), resume=tmp_path / "model", verbose=False)
    with pytest.raises(gr.CheckpointMismatch, match=r"no parameter fits this model"):
        gr.Trainer(gr.nn.Sequential(gr.nn.Linear(9, 8))).load(tmp_path / "model", strict=False)
    assert made.load(tmp_path / "model", weights_only=True) == ["0.bias", "0.weight"]


@pytest.mark.parametrize("step", [1.5, "1_0", "\u0663", True, "0x1", "", None])
def test_counts_that_are_no_counts(step, tmp_path):
    made = trainer()
    made.step(X, Y)
    with pytest.raises(ValueError, match="step"):
        made.load_state_dict({**made.state_dict(), "step": step})
    if isinstance(step, str):
        made.save(tmp_path / "m")
        tensors, metadata = checkpoint.read(tmp_path / "m")
        checkpoint.write(tmp_path / "m", tensors, {**metadata, "step": step})
        with pytest.raises(gr.CheckpointCorrupt, match="step"):
            made.load(tmp_path / "m")
    with pytest.raises(ValueError, match="fresh is 5, and only 1 updates"):
        made.load_state_dict({**made.state_dict(), "fresh": 5})
    assert made.step_count == 1


# The command


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["digits", "--test-share", "0.5"], "--test-share is for your own arrays"),
        (["digits", "--scale", "none"], "--scale is for your own arrays"),
        (["digits", "--target", "y"], "--target is for your own arrays"),
        (["digits", "--folder", "here"], "--folder is for fashion-mnist"),
        (["--x", "x.npy", "--y", "y.npy", "--folder", "here"], "--folder is for fashion-mnist"),
        (["--x", "x.npy", "--y", "y.npy", "--resume", "--overwrite"], "leave one of the two out"),
        (["--x", "twice.csv", "--target", "y"], "two columns 'a': give each a name of its own"),
    ],
)
def test_options_that_would_be_ignored(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    (tmp_path / "twice.csv").write_text("a,a,y\n1,2,u\n3,4,v\n")
    assert main(["train", *options, "--epochs", "1", "--quiet"]) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors"))


def test_new_samples_far_from_those_of_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    np.save("far.npy", X.astype(float) * 1e300)
    assert main(["train", "--x", "x.npy", "--y", "y.npy", "--epochs", "1", "--quiet", "--optimizer", "adam",
                 "--weight-decay", "0.1"]) == 0  # fmt: skip
    assert main(["predict", "x.safetensors", "--x", "far.npy"]) == 1
    assert "which float32 cannot hold after the scaling" in capsys.readouterr().err


def test_a_layer_with_a_constructor_of_its_own_in_new():
    class Made(gr.nn.Layer):
        def __new__(cls, width):
            made = super().__new__(cls)
            made.width = width
            return made

    assert Made(3).width == 3
