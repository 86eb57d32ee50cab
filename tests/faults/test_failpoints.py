"""Kills of a rank in Python at each step of the protocol: in the library that a build for tests has made.

`libgradring.so` of such a build has failpoints, and stands in for the installed one in the ranks of these tests. It must be
of the same sources, so it is the one of GRADRING_BUILD, a folder in which cmake has built the tests, and no other.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from patience import promised

from . import functions
from .test_faults import DEADLINE, survivors_error

LIBRARY = Path(os.environ.get("GRADRING_BUILD", "/nowhere")) / "csrc" / "libgradring.so"

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists() or b"GRADRING_FAILPOINT" not in LIBRARY.read_bytes(),
    reason="needs GRADRING_BUILD, a folder in which cmake has built gradring with its tests",
)


@pytest.fixture(scope="module")
def library():
    """That library, if a process loads it in place of the installed one: not where the wheel was given other names."""
    code = "from gradring import _core; print(open('/proc/self/maps').read())"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARY.parent)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if str(LIBRARY.resolve()) not in loaded.stdout:
        pytest.skip(f"the installed module does not load {LIBRARY}: {loaded.stderr.strip()[-200:]}")
    return LIBRARY


@pytest.mark.parametrize(
    "name, place",
    [
        ("barrier", "before publish"),
        ("all_reduce", "begin"),
        ("all_reduce", "after publish"),
        ("all_reduce", "before write"),
        ("all_reduce", "within write"),
        ("all_reduce", "after write"),
        ("staged", "staged"),
        ("reduce_scatter", "after publish"),
        ("all_gather", "after write"),
        ("broadcast", "before publish"),
        ("transfer", "before publish"),
        ("split", "staged"),
        ("split", "after write"),
    ],
)
def test_kill_9_at_a_step(name, place, library, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    monkeypatch.setenv("GRADRING_FAILPOINT", f"{place},1,1,{signal.SIGKILL}")
    found = survivors_error(functions.killed_at_a_failpoint, name)
    assert found["error"] == "PeerDied" and found["rank"] == 1 and found["signal"] == signal.SIGKILL, found
    assert found["seconds"] < promised(DEADLINE) and found["again"] == "refused"
