"""Changes the pages for the site, beyond the settings in mkdocs.yml.

The pages are also read in the repository, where they link to sources, tests and results. The site has none of these: such a
link becomes the name of the file.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def without_outside_links(markdown: str, page: str) -> str:
    """The page's text with each link that leaves docs/ as code: the file's path from the root of the repository."""

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), match[2]))
        if path.startswith("docs/"):
            return match[0]
        words = match[1].strip("`")
        return f"`{path}`" if posixpath.basename(words) == posixpath.basename(path) else f"{match[1]} (`{path}`)"

    return LINK.sub(replace, markdown)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return without_outside_links(markdown, page.file.src_uri)
