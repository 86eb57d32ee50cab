"""What programs in C and Cython see of gradring, as lines of text; `python tests/packaging_abi.py` records them in abi.txt."""

from __future__ import annotations

import re
from pathlib import Path

import gradring as gr

SNAPSHOT = Path(__file__).parent / "packaging" / "abi.txt"


def plain(header: str) -> str:
    """A header's text without comments, directives and the mark of what is exported."""
    text = re.sub(r"/\*.*?\*/", " ", header, flags=re.DOTALL)
    text = re.sub(r"^#.*$|extern \"C\" \{", "", text, flags=re.MULTILINE).replace("GRADRING_API", " ")
    return re.sub(r"\s+", " ", text)


def lines(include: Path) -> list[str]:
    """The version, each constant with its value, each type and each function."""
    found = []
    for name in ("gradring.h", "row_transform.h"):
        header = (include / "gradring" / name).read_text(encoding="utf-8")
        found += [f"version {number}" for number in re.findall(r"#define GRADRING_ABI_VERSION (\d+)", header)]
        text = plain(header)
        for body in re.findall(r"enum \{(.*?)\}", text):
            found += [f"constant {' '.join(each.split())}" for each in body.split(",") if each.strip()]
        text = re.sub(r"enum \{.*?\};", "", text)
        for statement in text.split(";"):
            declared = statement.strip(" }")
            if declared:
                found.append(f"{'type' if declared.startswith('typedef') else 'function'} {declared}")
    return sorted(found)


def functions(recorded: list[str]) -> set[str]:
    """The names of the functions."""
    return {re.findall(r"(\w+)\(", line)[0] for line in recorded if line.startswith("function ")}


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(lines(Path(gr.get_include()))) + "\n", encoding="utf-8")
