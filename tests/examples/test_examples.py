"""Every example runs and learns, where what it needs is installed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "own_gradients_pytorch": "torch",
    "own_gradients_jax": "jax",
    "allreduce_pytorch": "torch",
    "allreduce_jax": "jax",
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example(path, tmp_path):
    needed = NEEDS.get(path.stem)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    result = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (accuracy,) = re.findall(r"test accuracy ([\d.]+)%", result.stdout)
    assert float(accuracy) >= 93.0, result.stdout


def test_there_are_examples():
    assert len(list(EXAMPLES.glob("*.py"))) >= 4


@pytest.mark.parametrize("name", ["allreduce_pytorch", "allreduce_jax"])
def test_examples_of_several_ranks(name, tmp_path):
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    command = [sys.executable, "-m", "gradring", "run", "-n", "2", EXAMPLES / f"{name}.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (accuracy,) = re.findall(r"2 ranks, test accuracy ([\d.]+)%", result.stdout)
    assert float(accuracy) >= 93.0, result.stdout
