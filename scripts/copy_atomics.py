"""Copies the tables of atomics from the headers of csrc/comm to docs/collectives.md, between two marks.

python scripts/copy_atomics.py            # writes the page
python scripts/copy_atomics.py --check    # status 1 if the page has others
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "collectives.md"
BEGIN = "<!-- atomics: written by scripts/copy_atomics.py -->\n"
END = "<!-- end of atomics -->\n"


def tables(path: Path) -> Iterator[list[list[str]]]:
    """The tables of a file whose first column is `variable`: rows of cells. A row without a name goes on with the row above."""
    table: list[list[str]] = []
    for line in [*path.read_text().splitlines(), ""]:
        if re.match(r"// \| variable +\|", line) or (table and line.startswith("// |")):
            row = [cell.strip() for cell in line[4:].strip("|").split("|")]
            if row[0]:
                table.append(row)
            else:
                table[-1] = [f"{above} {cell}".strip() for above, cell in zip(table[-1], row, strict=True)]
        elif table:
            table[1] = ["---"] * len(table[0])
            yield table
            table = []


def section() -> str:
    """What stands between the marks."""
    parts = []
    for path in sorted((ROOT / "csrc" / "comm").iterdir()):
        if path.suffix not in (".h", ".cc") or "test" in path.stem:
            continue
        for table in tables(path):
            lines = ["| " + " | ".join(row) + " |" for row in table]
            parts.append(f"`{path.relative_to(ROOT)}`\n\n" + "\n".join(lines) + "\n")
    return "\n" + "\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Write or compare."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = before + BEGIN + section() + END + after
    if "--check" in arguments:
        if wanted != text:
            print("docs/collectives.md has other tables of atomics than csrc/comm: run python scripts/copy_atomics.py")
        return int(wanted != text)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
