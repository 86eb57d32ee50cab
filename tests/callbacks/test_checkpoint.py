import os

import pytest

import gradring as gr


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, ["1", "2", "3", "4", "5"]),
        ({"every": 2}, ["2", "4", "5"]),
        ({"keep": 2}, ["4", "5"]),
        ({"every": 2, "keep": 1}, ["5"]),
    ],
)
def test_which_files_stay(trainer, data, tmp_path, options, left):
    trainer.fit(data, epochs=5, callbacks=[gr.callbacks.Checkpoint(tmp_path / "c-{epoch}.safetensors", **options)])
    assert sorted(os.listdir(tmp_path)) == [f"c-{epoch}.safetensors" for epoch in left]


def test_one_file_that_is_replaced(trainer, data, tmp_path):
    path = tmp_path / "c.safetensors"
    trainer.fit(data, epochs=3, callbacks=[gr.callbacks.Checkpoint(path, keep=1)])
    assert os.listdir(tmp_path) == ["c.safetensors"]
    trainer.load(path)
    assert trainer.epoch == 3


def test_the_last_epoch_of_a_stopped_run_is_saved(trainer, data, tmp_path):
    class Stop(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.stop = "enough"

    path = tmp_path / "c{step}"
    trainer.fit(data, epochs=9, callbacks=[Stop(), gr.callbacks.Checkpoint(path, every=5)])
    assert os.listdir(tmp_path) == ["c4"]


def test_files_of_others_are_left_alone(trainer, data, tmp_path):
    (tmp_path / "c-0").write_text("mine")
    callback = gr.callbacks.Checkpoint(tmp_path / "c-{epoch}", keep=1)
    trainer.fit(data, epochs=2, callbacks=[callback])
    os.unlink(callback.saved[-1])
    trainer.fit(data, epochs=1, callbacks=[callback])
    assert sorted(os.listdir(tmp_path)) == ["c-0", "c-3"]


def test_bad_arguments(trainer, data, tmp_path):
    for options, words in (
        ({"every": 0}, r"every must be an int of at least 1, got 0"),
        ({"keep": 0}, r"keep must be None or an int of at least 1, got 0"),
        ({"keep": 2}, r"keep=2 needs \{epoch\} or \{step\} in path"),
    ):
        with pytest.raises(ValueError, match=rf"\[Checkpoint\] {words}"):
            gr.callbacks.Checkpoint(tmp_path / "c", **options)
    with pytest.raises(ValueError, match=r"path may contain \{epoch\} and \{step\}, got 'c-\{loss\}'"):
        gr.callbacks.Checkpoint("c-{loss}")
    with pytest.raises(OSError, match=r"\[Checkpoint\] cannot write .*there is no folder .*none'; make it first"):
        trainer.fit(data, callbacks=[gr.callbacks.Checkpoint(tmp_path / "none" / "c")])
    assert trainer.step_count == 0


def test_the_state_in_a_file_does_not_choose_what_is_removed(trainer, data, tmp_path):
    """A file may come from anywhere, so the callback removes only files whose names its own path can make."""
    mine = [tmp_path / "precious", tmp_path / "other" / "c-1", tmp_path / "c-x"]
    (tmp_path / "other").mkdir()
    for file in mine:
        file.write_text("mine")
    callback = gr.callbacks.Checkpoint(tmp_path / "c-{epoch}", keep=1)
    names = [*map(str, mine), str(tmp_path / "other" / ".." / "precious"), 3, None, str(tmp_path / "c-7")]
    callback.load_state_dict({"path": callback.path, "saved": names})
    assert list(callback.saved) == [str(tmp_path / "c-7")]
    callback.load_state_dict({"path": callback.path, "saved": str(tmp_path)})
    trainer.fit(data, epochs=2, callbacks=[callback])
    assert all(file.read_text() == "mine" for file in mine)
