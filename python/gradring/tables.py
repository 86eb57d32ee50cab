"""Tables for terminals and for notebooks."""

from __future__ import annotations

import html as escaping
from collections.abc import Iterable, Sequence

__all__ = ["Table", "html"]

_MOST_ROWS = 100  # A notebook shows only the first and the last rows of a longer table.
_STYLE = "text-align:{};padding:0.1em 0.8em;white-space:pre-wrap"


def html(
    header: Sequence[object], rows: Iterable[Sequence[object]], *, caption: str = "", left: Sequence[int] = (0,)
) -> str:
    """A table as HTML, with its texts escaped; the columns in ``left`` are left-aligned, the others right-aligned.

    >>> html(["layer", "size"], [["<a>", 3]]).count("&lt;a&gt;")
    1
    """
    all_rows = list(rows)
    if len(all_rows) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        all_rows = [*all_rows[:half], ["..."] * len(header), *all_rows[-half:]]

    def cells(row: Sequence[object], tag: str) -> str:
        return "".join(
            f'<{tag} style="{_STYLE.format("left" if i in left else "right")}">{escaping.escape(str(cell))}</{tag}>'
            for i, cell in enumerate(row)
        )

    lines = [f"<caption>{escaping.escape(caption)}</caption>"] if caption else []
    lines.append(f"<thead><tr>{cells(header, 'th')}</tr></thead>")
    lines += ["<tbody>", *(f"<tr>{cells(row, 'td')}</tr>" for row in all_rows), "</tbody>"]
    return "<table>" + "\n".join(lines) + "</table>"


class Table(str):
    """A text that prints as lines, and that a notebook shows as a table.

    >>> Table.of(["layer", "size"], [["0: Linear(4, 2)", 10], ["total", 10]])
    layer             size
    0: Linear(4, 2)     10
    total               10
    """

    _html = ""

    @classmethod
    def of(cls, header: Sequence[object], rows: Iterable[Sequence[object]], *, left: Sequence[int] = (0,)) -> Table:
        """The table with these cells."""
        body = [[str(cell) for cell in row] for row in rows]
        lines = [[str(cell) for cell in header], *body]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        made = cls(
            "\n".join(
                "   ".join(
                    cell.ljust(width) if i in left else cell.rjust(width)
                    for i, (cell, width) in enumerate(zip(line, widths, strict=True))
                )
                for line in lines
            )
        )
        made._html = html(header, body, left=left)
        return made

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return str(self)
