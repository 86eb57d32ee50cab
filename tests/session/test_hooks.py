"""Layers import nothing that runs them, and run all the same."""

import subprocess
import sys

import pytest

from gradring.hooks import Hook

CODE = """
import sys
from gradring.nn import Linear
upper = ("session", "graph", "trainer", "loader", "optim", "callbacks")
loaded = [name for name in upper if "gradring." + name in sys.modules]
assert loaded == [], loaded
layer = Linear(2, 1)
layer.params.update({"weight": [[2.0], [3.0]], "bias": [1.0]})
assert layer([[1.0, 1.0]]).tolist() == [[6.0]]
assert "gradring.session" in sys.modules and "gradring.trainer" not in sys.modules
"""


def test_a_layer_brings_what_runs_it_when_it_is_called():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_hook_asks_for_its_function_once():
    asked = []
    hook = Hook()
    hook.load = lambda: (asked.append(1), hook.register(lambda a, b: a + b))
    assert hook(1, 2) == 3 and hook(3, 4) == 7 and asked == [1]


def test_a_hook_that_nobody_fills():
    with pytest.raises(RuntimeError, match=r"\[gradring\] nothing is registered"):
        Hook()(1)
