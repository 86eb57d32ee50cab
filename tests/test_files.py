import os
import socket
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

import gradring as gr
from gradring.files import remove_leftovers, replacing
from helpers import mlp


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


def test_the_new_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
    )
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("name"), real(a, b)))
    with replacing(tmp_path / "f") as file:
        file.write(b"new")
    assert calls == ["file", "name", "folder"]
    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"


def test_the_umask_is_followed(tmp_path):
    old = os.umask(0o027)
    try:
        with replacing(tmp_path / "f"):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def make_special(kind, path):
    """What is no regular file; never a device, which a mistake would damage."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.close()
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name("target"))
        path.symlink_to("target")
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a pipe", "folder"])
@pytest.mark.parametrize("how", ["save", "to_csv", "plot", "Checkpoint"])
def test_only_regular_files_are_replaced(kind, how, tmp_path):
    if how == "plot":
        pytest.importorskip("matplotlib")
    path = tmp_path / "out.png"
    make_special(kind, path)
    before = {name: (tmp_path / name).lstat() for name in os.listdir(tmp_path)}
    trainer = gr.Trainer(mlp(3, 2), loss="mse", optimizer=gr.optim.SGD(lr=0.1))
    data = (np.ones((4, 3), np.float32), np.ones((4, 2), np.float32))
    with pytest.raises(OSError, match="folder" if kind == "folder" else "only a regular file can be replaced"):
        if how == "save":
            trainer.save(path)
        elif how == "Checkpoint":
            trainer.fit(data, epochs=1, batch_size=4, callbacks=[gr.callbacks.Checkpoint(path)])
        else:
            getattr(trainer.fit(data, epochs=1, batch_size=4), how)(path)
    after = {name: (tmp_path / name).lstat() for name in os.listdir(tmp_path)}
    assert after.keys() == before.keys()
    assert all(after[name].st_ino == before[name].st_ino for name in before)
    assert all(after[name].st_mode == before[name].st_mode for name in before)


WRITE = """
import os, sys
from gradring.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    os.read(0, 1)
"""


def begin_to_write(path):
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    return process


@pytest.mark.parametrize("by", ["save", "load"])
def test_what_a_killed_writer_left_is_removed_and_nothing_else(by, tmp_path):
    path = tmp_path / "model.safetensors"
    trainer = gr.Trainer(mlp(3, 2), loss="mse", optimizer=gr.optim.SGD(lr=0.1))
    trainer.save(path)
    others = [".model.safetensors.1.0123456", ".model.safetensorsx.1.01234567", "model.safetensors.1.01234567"]
    for name in others:
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / ".model.safetensors.1.aaaaaaaa")
    killed = [begin_to_write(path) for _ in range(3)]
    alive = begin_to_write(path)
    for process in killed:
        process.kill()
        process.communicate()
    assert len(os.listdir(tmp_path)) == 1 + len(others) + 1 + 4
    if by == "save":
        trainer.save(path)
    else:
        gr.Trainer(mlp(3, 2), loss="mse", optimizer=gr.optim.SGD(lr=0.1)).load(path)
    left = [name for name in os.listdir(tmp_path) if f".{alive.pid}." in name]
    assert len(left) == 1
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, ".model.safetensors.1.aaaaaaaa", *others, *left])
    alive.communicate(b"x")
    assert alive.returncode == 0 and path.read_bytes() == b"half" and len(os.listdir(tmp_path)) == 1 + len(others) + 1


WRITE_AGAIN_AND_AGAIN = """
import sys
from pathlib import Path
from gradring.files import remove_leftovers, replacing
path, number = Path(sys.argv[1]), int(sys.argv[2])
for turn in range(100):
    with replacing(path) as file:
        file.write(bytes([number]) * 1000)
    if turn % 3 == 0:
        remove_leftovers(path)
"""


def test_writers_of_one_file_take_nothing_from_each_other(tmp_path):
    path = tmp_path / "f"
    *writers, killed = (
        subprocess.Popen([sys.executable, "-c", WRITE_AGAIN_AND_AGAIN, str(path), str(number)]) for number in range(4)
    )
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.001)
    killed.kill()
    assert [writer.wait(timeout=60) for writer in (*writers, killed)][:3] == [0, 0, 0]
    remove_leftovers(path)
    content = path.read_bytes()
    assert os.listdir(tmp_path) == ["f"] and len(content) == 1000 and len(set(content)) == 1
