"""Objects compiled for an ISA level define nothing that the linker could pick for another level.

A weak (COMDAT) function outside the ISA namespace, such as an inline function of a shared header that was not inlined,
exists once per level, and the linker keeps any one of them: a machine without AVX-512 might run the AVX-512 copy. The same
holds for files that use instructions of their own, such as those of the tile unit.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lint.source import ROOT

BUILD = Path(os.environ.get("GRADRING_BUILD", ROOT / "build"))
# Files of one level, and files of instructions that a level need not have.
PATTERNS = (
    *(f"**/gradring_*_{level}.dir/**/*.o" for level in ("base", "avx2", "avx512")),
    "**/tiles_amx.cc.o",
    "**/tiles_dot.cc.o",
)
OBJECTS = sorted(path for pattern in PATTERNS for path in BUILD.glob(pattern))
NAMESPACES = ("isa_", "gradring::amx::", "gradring::dot::")
TOOLS = ("DW.ref.", "__asan", "__odr_asan")  # what compilers add


def weak_symbols(path):
    command = ["nm", "--defined-only", "--demangle", str(path)]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        kind, symbol = re.match(r"[0-9a-f]+ (\w) (.*)", line).groups()
        if kind in "WVu":
            yield symbol


@pytest.mark.skipif(not OBJECTS or shutil.which("nm") is None, reason="needs a build tree (GRADRING_BUILD) and nm")
def test_no_weak_symbol_outside_the_isa_namespaces():
    foreign = {
        f"{path.parts[-1]}: {symbol}"
        for path in OBJECTS
        for symbol in weak_symbols(path)
        if not any(namespace in symbol for namespace in NAMESPACES) and not symbol.startswith(TOOLS)
    }
    assert not foreign
