"""What a type checker says of typical mistakes in a user's script, before anything runs."""

import importlib.util
import re
import subprocess
import sys
from typing import get_args

import pytest

from gradring import metrics
from gradring.choices import MetricName
from gradring.losses import LossName
from gradring.losses.base import by_name

# Sound lines, in which nothing may be found.
SCRIPT = """\
import gradring as gr

train, test = gr.datasets.digits()
model = gr.nn.Sequential(gr.nn.Linear(64, 10))
gr.Trainer(model, loss="cross_entropy", metrics=["accuracy"], nonfinite="raise").optimizer = gr.optim.SGD(0.1)
gr.Trainer(model, loss=gr.losses.MSE(), metrics=(gr.metrics.TopK(3), "mae", lambda predictions, targets: 0.0))
"""
# The mistake, and whether mypy finds it.
MISTAKES = {
    'gr.Trainer(model, loss="mes")': True,
    'gr.Trainer(model, metrics="accuracy")': True,
    "gr.Trainer(model, optimizer=gr.optim.AdamW)": True,
    'gr.Trainer(model, nonfinite="skip")': True,
    "gr.Trainer(model).fit(train, callbacks=gr.callbacks.EarlyStop())": True,
    "gr.Trainer(model).fit(train, callbacks=[gr.callbacks.EarlyStop])": True,
    "gr.Trainer(model).fit(train, validation=test)": True,
    "gr.Trainer(model).fit(train.x, train.y)": True,
    "gr.Loader(train, 32, suffle=True)": True,
    "gr.nn.Sequential([gr.nn.Linear(64, 10)])": True,
    "gr.Trainer(model).learning_rate = 0.1": True,
    # Not found: which metrics there will be is known when fit is called. It raises before the first step.
    'gr.Trainer(model).fit(train, callbacks=[gr.callbacks.EarlyStop("val_acc")])': False,
}


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_finds_most_of_twelve_mistakes(tmp_path):
    sound = SCRIPT.splitlines()
    script = tmp_path / "script.py"
    script.write_text("\n".join([*sound, *MISTAKES]) + "\n")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--cache-dir", tmp_path / "cache", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    wrong = {int(line) for line in re.findall(r"^script\.py:(\d+): error", done.stdout, re.MULTILINE)}
    found = {mistake: number in wrong for number, mistake in enumerate(MISTAKES, start=len(sound) + 1)}
    assert found == MISTAKES, done.stdout + done.stderr
    assert not wrong & set(range(len(sound) + 1))
    assert len(MISTAKES) == 12 and sum(found.values()) >= 9


def test_the_types_of_names_are_the_names():
    assert set(get_args(LossName)) == set(by_name())
    assert set(get_args(MetricName)) == set(metrics.NAMES)
