"""The bits of fifty steps of twenty models stay what they were recorded to be, at each instruction set.

A change that alters them on purpose says so in its commit and records them anew: ``python tests/bits/record.py``.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradring import _core

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "hashes.json").read_text())
LEVELS = ["base", "avx2", "avx512"]


def compiler():
    """The compiler that built the core, as it says itself in the library: other compilers contract other products."""
    library = Path(_core.__file__).parent / "libgradring.so"
    found = re.search(rb"GCC: \([^)]*\) (\d+)\.", library.read_bytes())
    return f"GCC {found[1].decode()}" if found else "unknown"


def measured(level):
    environment = {**os.environ, "GRADRING_ISA": level}
    done = subprocess.run(
        [sys.executable, HERE / "models.py"], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("level", LEVELS)
def test_the_bits_are_those_that_were_recorded(level):
    if compiler() != RECORDED["compiler"]:
        pytest.skip(f"the bits were recorded with {RECORDED['compiler']}, this core was built by {compiler()}")
    if LEVELS.index(level) > LEVELS.index(_core.detected_isa()):
        pytest.skip(f"this processor has no {level}")
    now, then = measured(level), RECORDED["hashes"][level]
    assert list(now) == list(then)
    assert {name: now[name] for name in now if now[name] != then[name]} == {}
