"""What the site is made of: docstrings whose arguments exist, and the scripts that change pages for it."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
MODULES = ("callbacks", "comm", "datasets", "interop", "losses", "metrics", "nn", "ops", "optim", "sources", "transforms")


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def documented():
    """Every public function, class and method that lists its arguments."""
    for module in MODULES:
        space = importlib.import_module(f"gradring.{module}")
        for name in space.__all__:
            found = getattr(space, name)
            parts = {name: found}
            if inspect.isclass(found):
                parts |= {f"{name}.{method}": value for method, value in vars(found).items() if inspect.isfunction(value)}
            for where, part in parts.items():
                if callable(part) and "Args:" in (inspect.getdoc(part) or ""):
                    yield pytest.param(part, id=f"{module}.{where}")


@pytest.mark.parametrize("part", [*documented()])
def test_the_listed_arguments_are_those_of_the_signature(part):
    section = re.search(r"^Args:\n((?: +.*\n?)+)", inspect.getdoc(part) or "", re.MULTILINE)
    assert section is not None
    listed = [name for line in re.findall(r"^    (\S.*)$", section[1], re.MULTILINE) for name in line.split(":")[0].split(", ")]
    assert listed and set(listed) <= inspect.signature(part).parameters.keys()


def test_arguments_that_share_a_line_get_one_each(monkeypatch):
    pytest.importorskip("griffe")
    text = "Do it.\n\nArgs:\n    x: (n,), any.\n    m, v: like x,\n        changed.\n    out: a, b: c.\n\nA, b: stays."
    assert script("docs_griffe", monkeypatch).as_markdown(text) == (
        "Do it.\n\nArgs:\n    x: (n,), any.\n"
        "    m: like x,\n        changed.\n    v: like x,\n        changed.\n    out: a, b: c.\n"
        "\nA, b: stays."
    )


def test_a_narrow_screen_gets_the_narrow_chart(monkeypatch):
    hooks = script("docs_hooks", monkeypatch)
    files = [SimpleNamespace(src_uri=f"assets/{name}.svg") for name in ("steps", "steps-narrow", "other")]
    html = '<p><img alt="x" src="../assets/steps.svg"></p><img src="../assets/other.svg">'
    assert hooks.on_page_content(html, files=files) == (
        '<p><picture><source media="(max-width: 600px)" srcset="../assets/steps-narrow.svg">'
        '<img alt="x" src="../assets/steps.svg"></picture></p><img src="../assets/other.svg">'
    )
