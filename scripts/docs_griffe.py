"""Makes docstrings Markdown for the site: examples become blocks of code, a literal block loses its second colon, and
arguments that share a line get one each."""

from __future__ import annotations

import re
from typing import Any

import griffe

ARGUMENTS = re.compile(r"^Args:\n(?:^(?: +.*)?\n?)+", re.MULTILINE)
SHARED = re.compile(r"^(    )(\w+(?:, \w+)+):((?: .*)?(?:\n     +.*)*)", re.MULTILINE)


def _one_by_one(shared: re.Match[str]) -> str:
    """Each name of ``a, b: text`` with the text, on lines of their own."""
    return "\n".join(f"{shared[1]}{name}:{shared[3]}" for name in shared[2].split(", "))


def as_markdown(text: str) -> str:
    """A docstring as mkdocstrings reads it, with each example of an interpreter's session between fences."""
    text = ARGUMENTS.sub(lambda section: SHARED.sub(_one_by_one, section[0]), text)
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
