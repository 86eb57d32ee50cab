"""Compare what two installed builds of gradring cost in instructions, memory, import time and size.

    python scripts/compare_builds.py OLD_PYTHON NEW_PYTHON [--wheels OLD.whl NEW.whl] [--only step,memory,import,size]

Each interpreter has one build installed. A row gives both builds' numbers and their ratio new/old. It needs valgrind for the
instructions, which do not depend on what else the machine does; the import time does.

- step: instructions of one training step, as the difference between N and 2 N steps under callgrind, on one thread of AVX2.
  The second row of a network has nonfinite="ignore": the difference is what the check of the gradients costs.
- fit: the same for one epoch of ``Trainer.fit``.
- memory: what 1,000 small trainers add to the process, in KiB per trainer, after a step of each.
- import: the smallest of several times of ``import gradring`` in a fresh interpreter, in milliseconds.
- size: bytes of the wheel, or without --wheels of the installed files.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TRAINER = """
import sys, numpy as np, gradring as gr
sizes = [int(size) for size in sys.argv[1].split("-")]
def trainer(**options):
    layers = []
    for i, o in zip(sizes, sizes[1:]):
        layers += [gr.nn.Linear(i, o), gr.nn.ReLU()]
    model = gr.nn.Sequential(*layers[:-1])
    return gr.Trainer(model, optimizer=gr.optim.SGD(0.01, momentum=0.9), threads=1, **options)
rng = np.random.default_rng(0)
"""
STEP = (
    TRAINER
    + """
count, rows, mode = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
made = trainer(nonfinite=mode)
x, y = rng.standard_normal((rows, sizes[0])).astype("f4"), np.arange(rows) % sizes[-1]
for _ in range(count):
    made.step(x, y)
"""
)
FIT = (
    TRAINER
    + """
count, rows = int(sys.argv[2]), int(sys.argv[3])
made = trainer()
x, y = rng.standard_normal((rows, sizes[0])).astype("f4"), np.arange(rows) % sizes[-1]
made.fit((x, y), epochs=count, batch_size=32, verbose=False)
"""
)
MEMORY = (
    TRAINER
    + """
count = int(sys.argv[2])
x, y = np.zeros((32, sizes[0]), "f4"), np.zeros(32, int)
def one():
    made = trainer()
    made.step(x, y)
    return made
def used():
    return int(open("/proc/self/statm").read().split()[1]) * 4
kept = [one() for _ in range(20)]
before = used()
kept += [one() for _ in range(count)]
print((used() - before) / count)
"""
)
IMPORT = """
import time
began = time.perf_counter()
import gradring
print((time.perf_counter() - began) * 1e3)
"""


def run(python: str, code: str, *arguments: object) -> str:
    """What the code prints."""
    command = [python, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def instructions(python: str, code: str, *arguments: object) -> int:
    """The instructions that a process takes, itself alone."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", python, "-c", code]
        # Threads of NumPy that spin would be counted too.
        quiet = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment = {**os.environ, "GRADRING_ISA": "avx2", **quiet}
        done = subprocess.run(
            [*command, *map(str, arguments)], check=True, capture_output=True, text=True, env=environment
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"callgrind said no number of instructions: {done.stderr[-400:]}")
    return int(found.group(1))


def per_turn(python: str, code: str, sizes: str, turns: int, *arguments: object) -> float:
    """The instructions of one step or epoch: those of 2 N less those of N, by N."""
    once, twice = (instructions(python, code, sizes, count, *arguments) for count in (turns, 2 * turns))
    return (twice - once) / turns


def import_time(python: str) -> float:
    """The smallest of several times, in milliseconds."""
    return min(float(run(python, IMPORT)) for _ in range(15))


def installed_size(python: str) -> int:
    """Bytes of the installed package."""
    code = "import gradring, os; print(os.path.dirname(gradring.__file__))"
    folder = Path(run(python, code).strip())
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def row(name: str, old: float, new: float, unit: str) -> None:
    """Print one line of the table."""
    print(f"{name:44} {old:14,.1f} {new:14,.1f} {unit:12} {new / old:7.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--wheels", nargs=2, metavar=("OLD", "NEW"))
    parser.add_argument("--only", default="step,fit,memory,import,size")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    only, pythons = set(options.only.split(",")), (options.old, options.new)
    print(f"{'':44} {'old':>14} {'new':>14} {'':12} {'new/old':>7}")
    if "step" in only:
        for sizes, rows in (("64-32-10", 32), ("784-256-128-10", 64)):
            for mode in ("raise", "ignore"):
                found = [per_turn(python, STEP, sizes, options.steps, rows, mode) for python in pythons]
                row(f"step of {sizes}, {rows} rows, nonfinite={mode}", *found, "instructions")
    if "fit" in only:
        for rows in (1440, 32):
            found = [per_turn(python, FIT, "64-32-10", max(options.steps // 10, 2), rows) for python in pythons]
            row(f"epoch of fit, 64-32-10, {rows} rows", *found, "instructions")
    if "memory" in only:
        row(
            "1,000 trainers of 64-32-10",
            *(float(run(python, MEMORY, "64-32-10", 1000)) for python in pythons),
            "KiB each",
        )
    if "import" in only:
        row("import gradring", *map(import_time, pythons), "ms")
    if "size" in only:
        sizes = [os.path.getsize(w) for w in options.wheels] if options.wheels else [*map(installed_size, pythons)]
        row("wheel" if options.wheels else "installed files", *sizes, "bytes")


if __name__ == "__main__":
    sys.exit(main())
