"""Compares the declarations of csrc/cuda/cublaslt.h with NVIDIA's header, and the names with its library.

    python scripts/check_cublaslt.py --cuda-include FOLDER [--include FOLDER] [--library libcublasLt.so.13]

g++ compiles csrc/cuda/cublaslt_check.cu against the header; then it must refuse declarations that differ from ours in one place
each. The library, which loads without a driver, must have every function that the table names. Exit status 0 only if so.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1] / "csrc"
# Each pair changes one declaration: a value, the size of a structure, a parameter's type, the number of parameters.
WRONG = [
    ("kCompute32 = 68", "kCompute32 = 64"),
    ("kNotSupported = 15", "kNotSupported = 16"),
    ("kDescTransB = 4", "kDescTransB = 5"),
    ("kPreferWorkspaceBytes = 1", "kPreferWorkspaceBytes = 2"),
    ("kBfloat16 = 14", "kBfloat16 = 2"),
    ("kPreferAlignmentD = 8", "kPreferAlignmentD = 9"),
    ("uint64_t data[8]", "uint64_t data[7]"),
    ("int state;\n  float waves;", "float waves;\n  int state;"),
    ("uint64_t columns, int64_t leading", "uint64_t columns, int leading"),
    ("(LtDescription*, int compute, int scale)", "(LtDescription*, int compute)"),
    ("const LtAlgorithm*, void* workspace", "LtAlgorithm, void* workspace"),
    ("int wanted, LtHeuristic* found", "size_t wanted, LtHeuristic* found"),
]


def compiles(csrc: list[Path], includes: list[Path]) -> subprocess.CompletedProcess[str]:
    command = ["g++", "-std=c++20", "-fsyntax-only", "-xc++", "-DGRADRING_SOFTWARE_DEVICE", "-DGRADRING_NEEDS_CUBLASLT"]
    command += [f"-I{folder}" for folder in csrc] + [f"-isystem{folder}" for folder in includes]
    return subprocess.run([*command, str(CSRC / "cuda/cublaslt_check.cu")], capture_output=True, text=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda-include", type=Path, required=True, help="the folder of cuda_runtime_api.h")
    parser.add_argument("--include", type=Path, help="the folder of cublasLt.h, if it is another one")
    parser.add_argument("--library", help="the path of libcublasLt.so")
    options = parser.parse_args(arguments)
    includes = [each for each in (options.cuda_include, options.include) if each]
    right = compiles([CSRC], includes)
    if right.returncode != 0:
        print(right.stderr)
        return 1
    header = (CSRC / "cuda/cublaslt.h").read_text()
    for before, after in WRONG:
        if header.count(before) != 1:
            raise SystemExit(f"cublaslt.h does not have one {before!r}")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "cuda").mkdir()
            (Path(folder) / "cuda/cublaslt.h").write_text(header.replace(before, after))
            wrong = compiles([Path(folder), CSRC], includes)
        if wrong.returncode == 0 or "static assertion failed" not in wrong.stderr:
            print(f"nothing sees that {before!r} became {after!r}:\n{wrong.stderr}")
            return 1
    names = re.findall(r'take\(&table->\w+, "(\w+)"\)', (CSRC / "cuda/cublaslt.cc").read_text())
    if options.library:
        library = ctypes.CDLL(options.library)
        missing = [name for name in names if not hasattr(library, name)]
        if missing or not names:
            print(f"{options.library} has no {', '.join(missing)}")
            return 1
        library.cublasLtGetVersion.restype = ctypes.c_size_t
        print(f"cuBLASLt {library.cublasLtGetVersion()} has {len(names)} functions of the table")
    print(f"the declarations are NVIDIA's; {len(WRONG)} wrong ones are refused")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
