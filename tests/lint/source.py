"""The files of the source tree, for the lints."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "gradring"


def cpp_files() -> list[Path]:
    """Every C and C++ source and header."""
    return sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cc", ".c", ".cu"})


def python_files() -> list[Path]:
    """Every module of the package, the tests, scripts, benchmarks and examples."""
    folders = (PACKAGE, ROOT / "tests", ROOT / "scripts", ROOT / "benchmarks", ROOT / "examples")
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def name(path: Path) -> str:
    """The name of a file in messages."""
    return path.relative_to(ROOT).as_posix()


def without_comments(text: str) -> str:
    """C++ text with its comments blanked; newlines stay, so that line numbers do."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match.group())

    return re.sub(r"//[^\n]*|/\*.*?\*/", blank, text, flags=re.DOTALL)
