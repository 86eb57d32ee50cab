"""The C program of two processes that reduce: it builds without warnings, runs, and checks its own sums."""

import shutil
import subprocess
from pathlib import Path

import pytest

import gradring as gr

SOURCE = Path(__file__).parents[2] / "examples" / "c_groups" / "all_reduce.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def test_two_processes_of_a_c_program_reduce(tmp_path):
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    library = Path(gr.get_library())
    program = tmp_path / "all_reduce"
    command = [COMPILER, "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{gr.get_include()}", SOURCE, library]
    built = subprocess.run(
        [*command, f"-Wl,-rpath,{library.parent}", "-o", program], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} of 2: the sum is right" for rank in range(2)]
