"""Kind 9: something useful where there is no terminal, and tables where there is a notebook."""

import subprocess
import sys

import pytest

import gradring as gr

PROGRAM = """
import numpy as np, gradring as gr
x = np.random.default_rng(0).standard_normal((64, 4)).astype("f4")
model = gr.nn.Sequential(gr.nn.Linear(4, 2))
gr.Trainer(model).fit((x, np.arange(64) % 2), epochs=3, validate=(x, np.arange(64) % 2), verbose={verbose!r})
"""


@pytest.mark.parametrize(("verbose", "lines"), [("auto", 3), (True, 3), ("lines", 3), (False, 0)])
def test_a_pipe_gets_one_line_per_epoch(verbose, lines):
    program = PROGRAM.format(verbose=verbose)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "" and "\r" not in done.stderr
    epochs = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert len(epochs) == lines
    assert all("val_loss" in line and "val_accuracy" in line for line in epochs)


def test_a_summary_in_a_cell_is_a_table():
    table = gr.nn.Sequential(gr.nn.Linear(4, 2), gr.nn.ReLU()).summary((8, 4))
    assert "\n" in repr(table) and not repr(table).startswith("'")
    assert table._repr_html_().count("<tr>") == 4
