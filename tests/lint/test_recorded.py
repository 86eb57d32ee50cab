"""A run that leaves out what has passed elsewhere must run everything else."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
FILE = """
import os
import pytest

def test_passes():
    pass

@pytest.mark.parametrize("number", [1, 2])
def test_needs_more(number):
    if number == 2 and "MORE" not in os.environ:
        pytest.skip("needs MORE")

@pytest.mark.xfail(strict=True)
def test_fails_as_expected():
    raise RuntimeError
"""


def run(folder, *words, **variables):
    environment = {**os.environ, "PYTHONPATH": str(TESTS), **variables}
    for name in ("GRADRING_TESTS_RECORD", "GRADRING_TESTS_RECORDED"):
        if name not in variables:
            environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "tests", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_second_run_has_what_the_first_skipped(tmp_path):
    for name in ("tests", "tests/packaging"):
        (tmp_path / name).mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text("import recorded\n\npytest_configure = recorded.install\n")
    (tmp_path / "tests" / "test_some.py").write_text(FILE)
    (tmp_path / "tests" / "packaging" / "test_always.py").write_text("def test_always():\n    pass\n")
    record = str(tmp_path / "passed.txt")

    assert "3 passed, 1 skipped, 1 xfailed" in run(tmp_path, GRADRING_TESTS_RECORD=record)
    rest = run(tmp_path, GRADRING_TESTS_RECORDED=record, MORE="1")
    assert "2 passed, 2 deselected, 1 xfailed" in rest
    assert "PASSED tests/test_some.py::test_needs_more[2]" in rest
    assert "PASSED tests/packaging/test_always.py::test_always" in rest
    assert "4 passed, 1 xfailed" in run(tmp_path, GRADRING_TESTS_RECORDED=str(tmp_path / "absent.txt"), MORE="1")
