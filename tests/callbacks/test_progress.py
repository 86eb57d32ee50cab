import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading

import numpy as np
import pytest

import gradring as gr


def test_the_bar_ends_full_and_shows_the_metrics(trainer, data):
    text = io.StringIO()
    trainer.fit(data, epochs=2, validate=data, callbacks=[gr.callbacks.Progress(text, style="bar")])
    last = text.getvalue().replace("\n", "\r").rstrip("\r").split("\r")[-1]
    assert "epoch 2/2: 100%" in last and "8/8" in last and "loss=0.5000" in last and "val_loss=0.5000" in last


def test_a_second_run_counts_from_one(trainer, data):
    trainer.fit(data, epochs=2)
    text = io.StringIO()
    trainer.fit(data, epochs=3, callbacks=[gr.callbacks.Progress(text, style="bar")])
    assert "epoch 3/3: 100%" in text.getvalue() and "12/12" in text.getvalue() and "/5" not in text.getvalue()


def test_no_thread_is_started(trainer, data):
    before = set(threading.enumerate())

    class Count(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            assert set(threading.enumerate()) <= before

    trainer.fit(data, callbacks=[gr.callbacks.Progress(io.StringIO()), Count()])


def test_a_source_without_a_length(trainer):
    class Endless:
        def __iter__(self):
            return iter([1, 2, 3])

    text = io.StringIO()
    trainer.fit(Endless(), epochs=2, callbacks=[gr.callbacks.Progress(text)])
    assert "epoch 2/2" in text.getvalue()


def test_a_loader_says_what_it_chose():
    x = np.random.default_rng(0).random((100, 3))
    text = io.StringIO()
    model = gr.nn.Sequential(gr.nn.Linear(3, 2))
    native = gr.Trainer(model, loss="mse", optimizer=gr.optim.SGD(0.1))
    loader = gr.Loader((x, x[:, :2]), 10, transforms={0: [gr.transforms.Scale(2.0)]})
    native.fit(loader, epochs=2, callbacks=[gr.callbacks.Progress(text)])
    line = text.getvalue().replace("\r", "\n").splitlines()
    assert f"loader: {loader.stats().chosen}. {loader.stats().advice}" in [part.strip() for part in line]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("more", [0, 1, 6])
def test_the_validation_metrics_fit_the_line(columns, more):
    x = np.random.default_rng(0).standard_normal((64, 3)).astype("f4")
    metrics = ["accuracy", *(_metric(f"a_rather_long_name_{number}") for number in range(more))]
    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(3, 2)), metrics=metrics)
    data = (x, np.arange(64) % 2)
    with terminal(columns) as (file, shown):
        trainer.fit(data, epochs=10, validate=data, callbacks=[gr.callbacks.Progress(file)])
    drawn = [part for part in "".join(shown).replace("\n", "\r").split("\r") if part.strip()]
    assert [part for part in drawn if len(part) > columns and not part.startswith("loader: ")] == []
    last = [part for part in drawn if "epoch 10/10: 100%" in part][-1]
    assert re.search(r"\bval_loss=\d+\.\d\d", last)
    assert columns < 80 or more > 1 or re.search(r"\bval_acc=\d+\.\d\d", last)
    assert "|" in last


@contextlib.contextmanager
def terminal(columns):
    """A file that is a terminal of this width, and what has been written to it, when the block is over."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = []

    def read():
        with contextlib.suppress(OSError):  # the other end has been closed
            while text := os.read(ours, 4096):
                shown.append(text.decode(errors="replace"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with open(theirs, "w") as file:
            yield file, shown
    finally:
        reader.join()
        os.close(ours)


def _metric(name):
    def metric(predictions, targets):
        return 12.345

    metric.__name__ = name
    return metric


def test_a_terminal_gets_a_bar_and_anything_else_a_line(trainer, data, monkeypatch):
    for stream, bar in ((io.StringIO(), False), (Terminal(), True), (None, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        trainer.fit(data, epochs=1)
        if stream is not None:
            assert "epoch 1/1" in stream.getvalue() and ("\r" in stream.getvalue()) == bar
