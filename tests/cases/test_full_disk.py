"""A full disk, of kind 5: the training goes on, files stay whole, and the error at the end says what is missing."""

import errno
import io
import logging
import os
import resource
import sys

import numpy as np
import pytest

import gradring as gr
from gradring.callbacks import log_file
from gradring.cli import main, train
from helpers import run_script

RNG = np.random.default_rng(31)
X, Y = RNG.standard_normal((64, 4)).astype(np.float32), RNG.integers(0, 3, 64)


def trainer():
    model = gr.nn.Sequential(gr.nn.Linear(4, 5), gr.nn.Tanh(), gr.nn.Linear(5, 3))
    return gr.Trainer(model, optimizer=gr.optim.Adam(0.01))


class Disk:
    """A disk that has room, or has none, for files that appear whole and for logs."""

    def __init__(self, monkeypatch):
        self.room = None  # in bytes, for logs; None: enough
        self.number = errno.ENOSPC
        real = os.fsync

        def fsync(descriptor):
            if self.room is not None:
                raise OSError(self.number, os.strerror(self.number))
            real(descriptor)

        disk = self

        class File(io.FileIO):
            def write(self, data):
                if disk.room is None:
                    return super().write(data)
                if not disk.room:
                    raise OSError(disk.number, os.strerror(disk.number))
                part = bytes(data)[: disk.room]
                disk.room -= len(part)
                return super().write(part)

        monkeypatch.setattr("gradring.files.os.fsync", fsync)
        monkeypatch.setattr(
            log_file, "open", lambda path, mode, buffering: File(path, mode.replace("b", "")), raising=False
        )


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


class Fills(gr.callbacks.Callback):
    """Fills the disk after one epoch, to so many bytes, and empties it after another."""

    def __init__(self, disk, first, last, room=0):
        self.disk, self.first, self.last, self.free = disk, first, last, room

    def on_epoch_end(self, run):
        if run.epoch == self.first:
            self.disk.room = self.free
        if run.epoch == self.last:
            self.disk.room = None


@pytest.mark.parametrize("room", [0, 1, 30])
def test_rows_are_written_when_there_is_room_again(disk, room, tmp_path, caplog):
    path, seen = tmp_path / "log.csv", []

    class Read(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            seen.append(path.read_text())

    callbacks = [Fills(disk, 2, 5, room), gr.callbacks.Csv(path), Read()]
    history = trainer().fit((X, Y), 8, callbacks=callbacks, verbose=False)
    assert all(text.endswith("\n") for text in seen), "the file has a part of a row"
    assert [len(text.splitlines()) for text in seen] == [2, 3, 3, 3, 3, 7, 8, 9]
    assert [float(row.split(",")[1]) for row in seen[-1].splitlines()[1:]] == history.metrics["loss"]
    assert sum("cannot be written now, because the disk is full" in record.message for record in caplog.records) == 1


def test_rows_that_are_left_are_an_error_after_the_training(disk, tmp_path):
    made, path = trainer(), tmp_path / "log.csv"
    with pytest.raises(
        OSError, match=r"\[Csv\] .*lacks the last 4 records, because the disk is full; those before are whole"
    ):
        made.fit((X, Y), 6, callbacks=[Fills(disk, 2, 99), gr.callbacks.Csv(path)], verbose=False)
    assert made.epoch == 6 and len(path.read_text().splitlines()) == 3
    disk.room = None
    made.history.to_csv(path)
    assert len(path.read_text().splitlines()) == 7


def test_a_log_for_tensorboard_has_whole_records(disk, tmp_path):
    plain = trainer()
    plain.fit((X, Y), 6, callbacks=[gr.callbacks.TensorBoard(tmp_path / "a")], verbose=False)
    trainer().fit((X, Y), 6, callbacks=[Fills(disk, 1, 3, 11), gr.callbacks.TensorBoard(tmp_path / "b")], verbose=False)
    sizes = [os.path.getsize(next((tmp_path / name).iterdir())) for name in "ab"]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_checkpoint_keeps_the_file_before(disk, number, tmp_path, caplog):
    path, disk.number, seen = tmp_path / "m", number, []

    class Read(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            if run.epoch:
                again = trainer()
                again.load(path)
                seen.append(again.epoch)

    made = trainer()
    made.fit((X, Y), 8, callbacks=[Read(), Fills(disk, 2, 5), gr.callbacks.Checkpoint(path)], verbose=False)
    assert seen == [1, 2, 2, 2, 2, 6, 7]
    assert any("the file that was there is unchanged; the training goes on" in r.message for r in caplog.records)
    assert sorted(os.listdir(tmp_path)) == ["m"]
    again = trainer()
    again.load(path)
    assert again.epoch == 8


def test_a_checkpoint_that_is_not_there_at_the_end_is_an_error(disk, tmp_path):
    made, path = trainer(), tmp_path / "m{epoch}"
    with pytest.raises(
        OSError, match=r"\[save\] .*m5 was not written: the disk is full; nothing was written"
    ) as raised:
        made.fit((X, Y), 5, callbacks=[Fills(disk, 2, 99), gr.callbacks.Checkpoint(path, keep=2)], verbose=False)
    assert raised.value.errno == errno.ENOSPC and made.epoch == 5
    assert sorted(os.listdir(tmp_path)) == ["m1", "m2"], "the last good files stay"
    disk.room = None
    made.save(tmp_path / "m5")


def test_the_best_file_is_replaced_by_a_better_one_later(disk, tmp_path):
    made, path = trainer(), tmp_path / "best"
    callbacks = [Fills(disk, 1, 3), gr.callbacks.Checkpoint(path, monitor="loss")]
    history = made.fit((X, Y), 6, callbacks=callbacks, verbose=False)
    best = trainer()
    best.load(path)
    assert best.epoch == 1 + int(np.argmin(history.metrics["loss"]))
    disk.room = 0
    with pytest.raises(OSError, match="the disk is full; the file that was there is unchanged"):
        made.fit((X, Y), 1, callbacks=[gr.callbacks.Checkpoint(path, monitor="loss")], verbose=False)


def test_other_errors_of_a_checkpoint_end_the_run(tmp_path):
    class Removes(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            os.rmdir(tmp_path / "folder")

    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        trainer().fit(
            (X, Y), 3, callbacks=[Removes(), gr.callbacks.Checkpoint(tmp_path / "folder" / "m")], verbose=False
        )


@pytest.mark.parametrize("save", [lambda made, path: made.save(path), lambda made, path: made.model.save(path),
                                  lambda made, path: made.history.to_csv(path)])  # fmt: skip
def test_what_is_saved_by_hand(disk, save, tmp_path):
    made, path = trainer(), tmp_path / "m"
    made.fit((X, Y), verbose=False)
    save(made, path)
    before = path.read_bytes()
    disk.room = 0
    with pytest.raises(
        OSError, match=r"\[save\] .*m was not written: the disk is full; the file that was there is unch"
    ):
        save(made, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m"]


# The command


def test_the_command_asks_for_room_before_it_trains(disk, tmp_path, capsys):
    disk.room = 0
    assert main(["train", "digits", "--epochs", "1", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "[train] --out" in said.err and "the disk is full" in said.err and "epoch 1" not in said.err
    assert os.listdir(tmp_path) == []


def test_the_command_saves_elsewhere_if_the_disk_is_full_by_then(disk, tmp_path, capsys, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(train.tempfile, "mkdtemp", lambda prefix: str(other))
    real = gr.Trainer.save

    def save(self, path, **options):
        disk.room = 0 if self.epoch and "other" not in str(path) else None
        real(self, path, **options)

    monkeypatch.setattr(gr.Trainer, "save", save)
    assert main(["train", "digits", "--epochs", "1", "--out", str(tmp_path / "out")]) == 1
    assert f"the model is in {other / 'digits.safetensors'} instead" in capsys.readouterr().err
    assert gr.load(other / "digits.safetensors").params["0.weight"].shape == (64, 256)
    assert os.listdir(tmp_path / "out") == []


def test_an_interrupted_training_says_where_to_resume(disk, tmp_path, capsys, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(train.tempfile, "mkdtemp", lambda prefix: str(other))
    real = gr.Trainer.save

    def save(self, path, **options):
        disk.room = 0 if "probe" not in str(path) and "other" not in str(path) else None
        real(self, path, **options)

    def fit(self, *given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(gr.Trainer, "save", save)
    monkeypatch.setattr(gr.Trainer, "fit", fit)
    assert main(["train", "digits", "--epochs", "1", "--out", str(tmp_path / "out")]) == 130
    said = capsys.readouterr().err
    assert f"once it is moved to {tmp_path / 'out' / 'digits.safetensors'}" in said and str(other) in said


LIMITED = """
import resource, sys
import numpy as np
import gradring as gr
gr.Trainer(gr.nn.Linear(64, 64)).step(np.zeros((2, 64)), np.zeros(2, np.int64))  # imports all that is needed
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
try:
    gr.Trainer(gr.nn.Linear(64, 64)).step(np.zeros((2, 64)), np.zeros(2, np.int64))
except MemoryError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
made = gr.Trainer(gr.nn.Linear(64, 64))
made.save(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
made.step(np.ones((2, 64)), np.zeros(2, np.int64))
try:
    made.save(sys.argv[1])
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
again = gr.Trainer(gr.nn.Linear(64, 64))
again.load(sys.argv[1])
print(again.step_count)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or resource.getrlimit(resource.RLIMIT_FSIZE)[1] != -1, reason="limited already"
)
def test_the_limit_of_a_files_size_is_named(tmp_path):
    done = run_script(LIMITED, tmp_path / "m")
    memory, file, steps = done.stdout.splitlines()
    assert "cannot reserve" in memory and "ulimit -f" in memory, done.stdout
    assert "was not written: the file would be larger than the limit (ulimit -f); the file that was there is" in file
    assert steps == "0" and os.listdir(tmp_path) == ["m"]


def test_the_warning_is_a_log_record_and_no_python_warning(disk, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "gradring.callbacks"):
        trainer().fit((X, Y), 3, callbacks=[Fills(disk, 0, 1), gr.callbacks.Csv(tmp_path / "l")], verbose=False)
    assert [record.name for record in caplog.records] == ["gradring.callbacks"]
