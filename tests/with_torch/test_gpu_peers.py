"""PyTorch's side of the measurements on a card: on a CPU, to see that each of its rows runs."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")


def load():
    """The script, as a module."""
    path = Path(__file__).parents[2] / "scripts" / "gpu_peers.py"
    spec = importlib.util.spec_from_file_location("gpu_peers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_runs_and_says_how_long(capsys):
    script = load()
    assert script.main(["small", "--device", "cpu"]) == 0
    head, *rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert head["card"] == "cpu" and head["size"] == "small"
    names = [row["row"] for row in rows]
    assert len(names) == len(set(names)) == 11
    assert [row.get("error") for row in rows] == [None] * 11
    assert {"adamw, fused (highest)", "cross_entropy and its gradient, eager (highest)"} <= set(names)


def test_a_row_that_cannot_run_is_reported_and_the_others_go_on(capsys):
    def fails():
        raise RuntimeError("out of memory")

    load().measure("a row", fails, "cpu", once=True)
    assert json.loads(capsys.readouterr().out) == {"row": "a row", "error": "RuntimeError: out of memory"}
