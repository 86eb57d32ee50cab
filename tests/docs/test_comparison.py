"""The programs beside Keras's and PyTorch's: they run, they reach the same marks, and ours are never longer than Keras's."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradring as gr

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "benchmarks" / "comparison"
# What the last printed number of each task must be.
MARKS = {
    "classification": lambda accuracy: accuracy > 0.94,
    "regression": lambda error: error < 2.5,
    "multi_label": lambda right: right > 0.95,
    "autoencoder": lambda loss: loss < 0.025,
    "custom_loop": lambda accuracy: accuracy > 0.93,
    "custom_layer": lambda accuracy: accuracy > 0.93,
    "fine_tuning": lambda accuracy: accuracy > 0.85,
    "augmentation": lambda accuracy: accuracy > 0.94,
    "large_data": lambda accuracy: accuracy > 0.93,
    "resuming": lambda accuracy: accuracy > 0.93,
}
# Runs each program in its folder, and prints the last line that it printed. One process, because importing takes longest.
RUNNER = """
import contextlib, io, os, runpy, sys
for task in sys.argv[3:]:
    os.chdir(os.path.join(sys.argv[1], task))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(os.path.join(sys.argv[1], task, sys.argv[2]), run_name="__main__")
    print(task, printed.getvalue().splitlines()[-1])
"""


def write_data(folder):
    train, test = gr.datasets.digits()
    generator = np.random.default_rng(0)
    for task in MARKS:
        (folder / task).mkdir()
        arrays = {"x": train.x, "y": train.y, "x_test": test.x, "y_test": test.y}
        if task == "regression":
            x = generator.uniform(-3, 3, (2000, 2))
            y = 100 + 20 * np.sin(x[:, :1]) * x[:, 1:]
            arrays = {"x": x[:1600], "y": y[:1600], "x_test": x[1600:], "y_test": y[1600:]}
        if task == "multi_label":
            for name in ("y", "y_test"):
                labels = [arrays[name] % 2 == 0, arrays[name] >= 5, np.isin(arrays[name], [0, 4, 6, 8, 9])]
                arrays[name] = np.stack(labels, axis=1).astype(np.float32)
        for name, array in arrays.items():
            np.save(folder / task / f"{name}.npy", array)


@pytest.mark.parametrize("library", ["gradring", "pytorch"])
def test_programs_reach_the_marks(library, tmp_path):
    if library == "pytorch" and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    write_data(tmp_path)
    for task in MARKS:
        program = PROGRAMS / task / f"with_{library}.py"
        (tmp_path / task / program.name).write_text(program.read_text())
    command = [sys.executable, "-c", RUNNER, tmp_path, f"with_{library}.py", *MARKS]
    # Small networks: the threads of PyTorch would only wait for each other.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    results = {task: float(value) for task, value in map(str.split, done.stdout.splitlines())}
    assert {task: value for task, value in results.items() if not MARKS[task](value)} == {}
    assert results.keys() == MARKS.keys()


def test_ours_are_never_longer_than_kerass_and_the_page_has_the_numbers():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "count_lines.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, "docs/comparison.md has other numbers: run python scripts/count_lines.py"
    rows = re.findall(r"\| (\d+) \| (\d+) \| (\d+) \|", done.stdout)
    assert len(rows) == len(MARKS) + 1
    assert all(int(ours) <= int(keras) for ours, keras, _ in rows)


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*/with_keras.py")), ids=lambda path: path.parent.name)
def test_the_programs_for_keras_are_python(path):
    code = compile(path.read_text(), str(path), "exec")
    assert "keras" in code.co_names
