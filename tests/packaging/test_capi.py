"""The C interface, from a C program built against the installed header and library."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import gradring as gr

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_a_c_program_compiles_runs_and_gets_the_right_numbers(tmp_path):
    program = tmp_path / "use_gradring"
    library = Path(gr.get_library())
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{gr.get_include()}"]
    command = [COMPILER, *flags, str(HERE / "use_gradring.c"), "-o", str(program), str(library)]
    subprocess.run([*command, f"-Wl,-rpath,{library.parent}"], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"


def test_one_version_everywhere():
    header = Path(gr.get_include(), "gradring", "gradring.h").read_text()
    assert re.search(r'#define GRADRING_VERSION "(.*)"', header).group(1) == gr.__version__
    project = (HERE.parents[1] / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.*)"', project, re.MULTILINE).group(1) == gr.__version__
