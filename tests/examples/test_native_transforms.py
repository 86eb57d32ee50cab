"""The same transform in C, Cython and Numba: each runs, and gives the bits that NumPy gives."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradring as gr
from gradring.sources import open_source
from transforms import reference

EXAMPLES = Path(__file__).parents[2] / "examples" / "native_transforms"
NEEDS = {"with_ctypes": None, "with_cython": "Cython", "with_numba": "numba"}


def brightened(row, sample, index):
    word = reference.words(7, 2, sample, 0, index)
    random = int(word[1]) << 32 | int(word[0])
    factor = np.float32(0.8) + np.float32(0.4) * (np.float32(random >> 40) * np.float32(2**-24))
    return row * factor


@pytest.mark.parametrize("name", NEEDS)
def test_example(name, tmp_path):
    if NEEDS[name] and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    if NEEDS[name] != "numba" and shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x = np.random.default_rng().random((20, 5, 7), dtype=np.float32)
    opened = open_source(x).transformed([gr.transforms.Scale(2.0), module.make_transform()])
    assert not opened.python
    got = opened.read([3, 19, 0, 3], seed=7, epoch=2)
    for row, sample in zip(got, [3, 19, 0, 3], strict=True):
        assert row.tobytes() == brightened(x[sample] * np.float32(2), sample, 1).tobytes()


def test_one_runs_as_a_script(tmp_path):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    result = subprocess.run(
        [sys.executable, EXAMPLES / "with_ctypes.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "mean of all batches: 0.49" in result.stdout or "mean of all batches: 0.50" in result.stdout
