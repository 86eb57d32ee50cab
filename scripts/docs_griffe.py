"""Makes docstrings Markdown for the site: examples become blocks of code, and a literal block loses its second colon."""

from __future__ import annotations

import re
from typing import Any

import griffe


def as_markdown(text: str) -> str:
    """A docstring as mkdocstrings reads it, with each example of an interpreter's session between fences."""
    lines: list[str] = []
    session = ""  # the indentation of the example at hand, behind a mark
    for line in text.splitlines():
        stripped = line.lstrip()
        if stripped.startswith(">>>") and not session:
            session = "|" + line[: len(line) - len(stripped)]
            lines += ["", f"{session[1:]}```pycon"]
        elif session and not stripped:
            lines.append(f"{session[1:]}```")
            session = ""
        lines.append(line)
    if session:
        lines.append(f"{session[1:]}```")
    joined = re.sub(r"::$", ":", "\n".join(lines), flags=re.MULTILINE)
    return re.sub(r":(?:func|class|meth|mod|attr):`~?([^`]+)`", r"`\1`", joined)


class Docstrings(griffe.Extension):
    """Rewrites each docstring when its object has been read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
