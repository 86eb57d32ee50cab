"""The README: short, its Python runs, its figures are those that were measured, and a package index can show it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(snippet: str, folder: Path) -> str:
    script = folder / "snippet.py"
    script.write_text(snippet, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_snippet_learns_and_saves(tmp_path: Path) -> None:
    accuracy = float(re.findall(r"'accuracy': ([0-9.]+)", run(SNIPPETS[0], tmp_path))[0])
    assert accuracy > 0.95
    assert (tmp_path / "digits.safetensors").stat().st_size > 0


def test_the_second_snippet_goes_on_where_it_was(tmp_path: Path) -> None:
    first = run(SNIPPETS[1], tmp_path)
    assert float(first.split()[0]) > 0.95
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {"best.safetensors", "last.safetensors"}
    assert run(SNIPPETS[1], tmp_path) == first  # the run was complete: nothing is trained again


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 90
    assert [len(snippet.splitlines()) <= 15 for snippet in SNIPPETS] == [True, True]


def test_a_package_index_can_show_it() -> None:
    """Relative links lead nowhere there, and neither would a picture of the repository."""
    description = (ROOT / "docs" / "description.md").read_text(encoding="utf-8")
    for text in (README, description):
        assert re.findall(r"\]\((?!https://)", text) == []
    assert "<img" in README and "<" not in re.sub(r"```.*?```|<https://[^>]+>", "", description, flags=re.DOTALL)
    assert re.search(r'^readme = "docs/description.md"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def test_files_that_it_names_exist() -> None:
    named = re.findall(r"`((?:docs|benchmarks|examples)/[\w/.-]*|[A-Z]+\.md)`", README)
    assert len(named) > 5 and [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("mark", [r"^python3 -m venv .*pytest$", r"^python3 -m venv .*gradring train digits"])
def test_it_has_the_two_commands(mark: str) -> None:
    assert re.search(mark, README, re.MULTILINE)


def test_the_figures_are_those_of_the_results() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "draw_figures.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run python scripts/draw_figures.py"
