"""Counts the lines of the programs in benchmarks/comparison, and writes the table of docs/comparison.md.

    python scripts/count_lines.py              # after a change of a program
    python scripts/count_lines.py --check      # exit status 1 if the page has other numbers

A line counts if it has code: neither blank lines nor comments do. All programs have the same formatter (ruff format).
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "benchmarks" / "comparison"
PAGE = ROOT / "docs" / "comparison.md"
LIBRARIES = {"gradring": "gradring", "Keras": "keras", "PyTorch": "pytorch"}
TASKS = {
    "classification": "classify, with validation and early stopping",
    "regression": "regress, with scaled data and a cosine schedule",
    "multi_label": "several labels per sample",
    "autoencoder": "an autoencoder, and the codes in a file",
    "custom_loop": "a loop of your own",
    "custom_layer": "a layer of your own",
    "fine_tuning": "fine-tune a saved model with a new last layer",
    "augmentation": "random crops while training",
    "large_data": "data larger than memory, shuffled",
    "resuming": "go on after a crash",
}


def lines_of_code(path: Path) -> int:
    """Lines that are neither blank nor a comment."""
    lines = map(str.strip, path.read_text(encoding="utf-8").splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)


def counts() -> dict[str, dict[str, int]]:
    """The numbers of lines, by task and library."""
    return {
        task: {name: lines_of_code(PROGRAMS / task / f"with_{file}.py") for name, file in LIBRARIES.items()}
        for task in TASKS
    }


def table() -> str:
    """The page's table."""
    rows = [f"| program | {' | '.join(LIBRARIES)} |", "|---|" + "---|" * len(LIBRARIES)]
    total = dict.fromkeys(LIBRARIES, 0)
    for task, by_library in counts().items():
        rows.append(f"| {TASKS[task]} | {' | '.join(map(str, by_library.values()))} |")
        for name, count in by_library.items():
            total[name] += count
    return "\n".join([*rows, f"| together | {' | '.join(map(str, total.values()))} |"])


def main() -> int:
    """Writes the table, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the page differs")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    new = re.sub(r"(<!-- begin lines[^\n]*\n).*?(<!-- end lines -->)", rf"\g<1>{table()}\n\g<2>", old, flags=re.DOTALL)
    if new != old and not check:
        PAGE.write_text(new, encoding="utf-8")
    print(table())
    return 1 if check and new != old else 0


if __name__ == "__main__":
    sys.exit(main())
