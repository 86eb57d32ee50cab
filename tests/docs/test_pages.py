"""Every snippet of the documentation runs: of a page, the Python blocks as one script, then the commands of its shell blocks.

A Python block with a title is a file of that name, for the commands. The folder in which a page runs has X.npy, y.npy and
new.npy, as the commands of users do.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import gradring as gr

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Modules that are not installed with the package; a page that imports one is skipped without it.
EXTRAS = ("cloudpickle", "fastapi", "jax", "matplotlib", "onnx", "pandas", "sklearn", "torch")


@dataclass(frozen=True)
class Page:
    """A page's code."""

    path: Path
    script: str
    files: dict[str, str]
    commands: list[str]


def read(path: Path) -> Page:
    script, files, commands = [], {}, []
    for language, info, code in FENCE.findall(path.read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', info)
        if title:
            files[title[1]] = code
        elif language == "python":
            script.append(code)
        elif language == "sh":
            commands += [line for line in code.splitlines() if line.startswith(("gradring ", "python "))]
    return Page(path, "\n".join(script), files, commands)


PAGES = [page for page in map(read, sorted(DOCS.rglob("*.md"))) if page.script or page.files]
PAGES = [page for page in PAGES if page.path.name != "description.md"]  # the README again


def prepare(folder: Path, page: Page) -> dict[str, str]:
    train, test = gr.datasets.digits()
    np.save(folder / "X.npy", train.x)
    np.save(folder / "y.npy", train.y)
    np.save(folder / "new.npy", test.x)
    for name, text in page.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "page.py").write_text(page.script, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Small networks: other libraries' threads would only wait for each other.
    return {**os.environ, "PATH": path, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.relative_to(DOCS).with_suffix("").as_posix())
def test_the_code_of_a_page_runs(page: Page, tmp_path: Path) -> None:
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", page.script + "\n".join(page.files.values()), re.MULTILINE))
    for name in imported.intersection(EXTRAS):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    environment = prepare(tmp_path, page)
    strict = [] if imported.intersection(EXTRAS) else ["-W", "error"]
    for command in ([sys.executable, *strict, "page.py"], *(["bash", "-ec", line] for line in page.commands)):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_pages_are_found() -> None:
    names = {page.path.stem for page in PAGES}
    assert {"index", "quickstart", "classification", "resuming", "serving"} <= names and len(PAGES) >= 18


def test_there_is_a_page_for_each_typical_task() -> None:
    tasks = {
        "classification",
        "regression",
        "multi-label",
        "autoencoder",
        "custom-loop",
        "custom-layer",
        "custom-loss",
        "fine-tuning",
        "augmentation",
        "large-data",
        "feeding",
        "other-gradients",
        "resuming",
        "notebooks",
        "scikit-learn",
        "serving",
    }
    pages = {page.path.stem for page in PAGES if page.path.parent.name == "how-to"}
    assert tasks <= pages
    counted = [folder.name.replace("_", "-") for folder in (DOCS.parent / "benchmarks" / "comparison").iterdir()]
    assert len(counted) == 10 and set(counted) <= pages, "the programs whose lines are counted are those of the pages"


def test_every_how_to_page_checks_what_it_shows() -> None:
    pages = [page for page in PAGES if page.path.parent.name == "how-to"]
    assert [page.path.name for page in pages if "assert " not in page.script + "".join(page.files.values())] == []


def test_code_fits_the_width_of_the_site() -> None:
    long = [
        f"{page.path.name}: {line}"
        for page in PAGES
        for _, _, code in FENCE.findall(page.path.read_text(encoding="utf-8"))
        for line in code.splitlines()
        if len(line) > 100
    ]
    assert long == []
