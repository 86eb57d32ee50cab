"""The data, trainers and commands that tests give bad input."""

import re

import numpy as np
import pytest

import gradring as gr
from gradring.cli import main
from helpers import snapshot

N = 40
RNG = np.random.default_rng(21)
X, Y = RNG.standard_normal((N, 4)).astype(np.float32), np.arange(N) % 3


def model():
    return gr.nn.Sequential(gr.nn.Linear(4, 5), gr.nn.Tanh(), gr.nn.Linear(5, 3))


def trainer(**options):
    return gr.Trainer(model(), **{"optimizer": gr.optim.SGD(0.1), **options})


def own(**options):
    """A trainer with a step of one's own, and parameters with the names of the model's."""
    params = {name: array.copy() for name, array in model().init(0).params.items()}
    return gr.Trainer(step=lambda p, b: (0.0, {n: np.zeros_like(a) for n, a in p.items()}), params=params,
                      **{"optimizer": gr.optim.SGD(0.1), **options})  # fmt: skip


class Refused(Exception):
    """The command's error."""


class Command:
    """The command, run in a folder of its own."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys

    def __call__(self, *arguments):
        before = sorted(self.folder.rglob("*"))
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        said = self.capsys.readouterr().err
        assert status != 0, "the command accepted it"
        made = [path for path in self.folder.rglob("*") if path not in before]
        assert all(path.is_dir() for path in made), f"the command left {made}"
        raise Refused(said.partition("error: ")[2])

    def train(self, table, *options):
        (self.folder / "t.csv").write_text(table)
        self("train", "--x", self.folder / "t.csv", "--out", self.folder / "out", "--epochs", 1, *options)

    def predict(self, table):
        rows = "".join(f"{i},{i * i % 7}.5,{'ab'[i % 2]}\n" for i in range(30))
        (self.folder / "t.csv").write_text("u,v,kind\n" + rows)
        assert main(["train", "--x", str(self.folder / "t.csv"), "--target", "kind", "--epochs", "1", "--quiet", "--out",
                     str(self.folder)]) == 0  # fmt: skip
        (self.folder / "n.csv").write_text(table)
        self("predict", self.folder / "t.safetensors", "--x", self.folder / "n.csv")


def expect_refusal(call, words, made=None):
    """The call raises an error that begins with a name and matches ``words``, and changes nothing of the trainer."""
    before = None if made is None else snapshot(made)
    with pytest.raises((ValueError, TypeError, gr.GradringError, Refused)) as raised:
        call()
    text = str(raised.value)
    assert re.match(r"\[[\w .]+\]", text), f"an error names its origin first: {text}"
    assert re.search(words, text, re.DOTALL), text
    if made is not None:
        after = snapshot(made)
        assert {n: after[n] for n in before if n not in ("draw", "batch")} == {
            n: before[n] for n in before if n not in ("draw", "batch")
        }
