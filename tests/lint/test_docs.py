"""Everything that the documents name exists: tests in tables, files in links, and files in the text."""

import re

import pytest

from lint.source import ROOT, name

DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "HACKING.md"])
# Where the tests lie that a document names without a folder.
FOLDERS = {"loader.md": ROOT / "tests" / "loader"}


def named_in(document):
    """The (path, pattern) of every test that it names."""
    text = document.read_text(encoding="utf-8")
    folder = FOLDERS.get(document.name, ROOT / "tests")
    for path, test in re.findall(r"`([\w/]+\.py)::(\w+)`", text):
        yield (ROOT / "tests" if "/" in path else folder) / path, rf"^def {test}\("
    for path, case in re.findall(r"`(csrc/[\w/]+_test\.cc): ([^`]+)`", text):
        yield ROOT / path, re.escape(f'TEST_CASE("{case}"')


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_named_tests_exist(document):
    missing = [
        f"{name(path)}: {pattern}"
        for path, pattern in named_in(document)
        if not path.exists() or not re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("document", ["docs/failures.md", "docs/loader.md"])
def test_every_row_of_a_table_with_tests_names_one(document):
    within = rows = 0
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            within = 0
        elif line.endswith("| tests |"):
            within = line.count("|")
        elif within and not line.startswith("|---"):
            rows += 1
            assert line.count("|") == within and re.search(r"(::test_\w+|_test\.cc: [^`]+)`[^|]*\|$", line), line
    assert rows > 20


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_linked_files_exist(document):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


# Pages that describe the source tree. (Other pages also name files that a user makes.)
ABOUT_THE_TREE = [ROOT / "HACKING.md", *(ROOT / "docs" / name for name in ("architecture.md", "cuda.md", "loader.md"))]
SOURCES = r"\.(?:h|cc|c|cu|pml|py|pyi|sh|cmake|in)"


def paths():
    """Every file and folder of the tree, as "/csrc/ops/op.h" and "/csrc/ops/"."""
    folders = ("csrc", "python", "tests", "scripts", "benchmarks", "examples", "docs", "cmake")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return [f"/{name(path)}/" if path.is_dir() else f"/{name(path)}" for path in found]


@pytest.mark.parametrize("document", ABOUT_THE_TREE, ids=name)
def test_files_named_in_the_text_exist(document):
    text = re.sub(r"^(?:```|    ).*$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = re.findall(rf"`((?:[\w.-]+/)*(?:[\w.-]+{SOURCES}|[\w.-]+/))`", text)
    assert len(named) >= 3
    there = paths()
    assert [path for path in named if not any(known.endswith(f"/{path}") for known in there)] == []
