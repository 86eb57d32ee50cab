"""Changes the pages for the site, beyond the settings in mkdocs.yml.

The pages are also read in the repository, where they link to sources, tests and results. The site has none of these: such a
link becomes the name of the file. The page of the kernels gets a section for modules of ops that it does not name. A chart that
has a narrow form, `NAME-narrow.svg` beside `NAME.svg`, is shown in it on narrow screens.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

OPS = Path(__file__).resolve().parents[1] / "python" / "gradring" / "ops" / "__init__.py"
MODULE = """
::: gradring.ops.{name}
    options:
      show_root_heading: false
      show_root_toc_entry: false
"""

IMAGE = re.compile(r'<img [^>]*src="([^"]+)\.svg"[^>]*>')
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


def with_all_ops(markdown: str) -> str:
    """The page of the kernels, with the modules that it does not name."""
    modules = re.findall(r"^from gradring\.ops\.([a-z]\w*) import", OPS.read_text(encoding="utf-8"), re.MULTILINE)
    more = [name for name in modules if f"::: gradring.ops.{name}\n" not in markdown]
    return "\n".join([markdown, *(["## More"] if more else []), *(MODULE.format(name=name) for name in more)])


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page."""
    if page.file.src_uri == "reference/ops.md":
        markdown = with_all_ops(markdown)
    return without_outside_links(markdown, page.file.src_uri)


def on_page_content(html: str, *, files: Any, **_: Any) -> str:
    """Called by mkdocs for each page, with its HTML."""
    assets = {posixpath.basename(file.src_uri) for file in files}

    def replace(image: re.Match[str]) -> str:
        narrow = f"{image[1]}-narrow.svg"
        if posixpath.basename(narrow) not in assets:
            return image[0]
        return f'<picture><source media="(max-width: 600px)" srcset="{narrow}">{image[0]}</picture>'

    return IMAGE.sub(replace, html)
