import numpy as np
import pytest

import gradring as gr


def test_rows_can_be_read_while_the_run_goes_on(trainer, data, tmp_path):
    path, seen = tmp_path / "log.csv", []

    class Read(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            seen.append(path.read_text().splitlines())

    trainer.fit(data, epochs=3, callbacks=[gr.callbacks.Csv(path), Read()])
    assert [len(lines) for lines in seen] == [2, 3, 4]
    assert seen[-1][0] == "epoch,loss,lr,seconds"
    assert [line.split(",")[:2] for line in seen[-1][1:]] == [["1", "1"], ["2", "0.5"], ["3", "0.3333333333333333"]]


def test_a_second_run_replaces_or_appends(trainer, data, tmp_path):
    path = tmp_path / "log.csv"
    trainer.fit(data, callbacks=[gr.callbacks.Csv(path)])
    trainer.fit(data, callbacks=[gr.callbacks.Csv(path, append=True)])
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["epoch", "1", "2"]
    trainer.fit(data, callbacks=[gr.callbacks.Csv(path)])
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["epoch", "3"]


def test_appending_other_columns(trainer, data, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,mood\n1,good\n")
    with pytest.raises(ValueError, match=r"\[Csv\] .*log.csv has columns \['epoch', 'mood'\], this epoch has"):
        trainer.fit(data, callbacks=[gr.callbacks.Csv(path, append=True)])
    assert path.read_text() == "epoch,mood\n1,good\n"


def test_an_unwritable_folder_is_known_before_the_training(trainer, data, tmp_path):
    with pytest.raises(FileNotFoundError):
        trainer.fit(data, callbacks=[gr.callbacks.Csv(tmp_path / "none" / "log.csv")])
    assert trainer.step_count == 0


def test_a_resumed_run_keeps_the_rows_of_the_run_before(tmp_path):
    path = tmp_path / "log.csv"

    def made():
        return gr.Trainer(gr.nn.Sequential(gr.nn.Linear(2, 2)).init(0), optimizer=gr.optim.SGD(0.1))

    x, y = np.random.default_rng(0).random((20, 2), np.float32), np.arange(20) % 2
    parts = [gr.callbacks.Csv(path), gr.callbacks.Checkpoint(tmp_path / "m")]
    made().fit((x, y), 2, callbacks=parts, verbose=False)
    history = made().fit((x, y), 5, callbacks=parts, resume=tmp_path / "m", verbose=False)
    lines = path.read_text().splitlines()
    assert lines[0].split(",") == list(history.metrics)
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4", "5"]
    losses = [float(line.split(",")[1]) for line in lines[1:]]
    np.testing.assert_allclose(losses, history.metrics["loss"])
    # With validation from now on: what earlier epochs have not is empty or NaN in their rows.
    history = made().fit((x, y), 6, callbacks=parts, resume=tmp_path / "m", validate=(x, y), verbose=False)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    assert len(lines) == 7 and all(len(line) == len(lines[0]) for line in lines) and "val_loss" in lines[0]
    assert float(lines[-1][lines[0].index("val_loss")]) == pytest.approx(history.last["val_loss"])
