"""tests/ mirrors the tree, so that a reader finds the tests of a file, and the file of a test, by its path alone.

A package ``python/gradring/<package>`` has its tests in ``tests/<package>``, and a module ``python/gradring/<module>.py`` in
``tests/test_<module>.py`` or, for one topic of several, in ``tests/test_<module>_<topic>.py``.
"""

import pytest

from lint.source import CSRC, PACKAGE, ROOT, name

TESTS = ROOT / "tests"
# tests/ is on the import path, and a folder there that is named after a library would be imported in the library's place
# where the library is missing. So the tests of what connects gradring to a library lie in folders of other names.
RENAMED = {"torch": "with_torch", "jax": "with_jax", "sklearn": "with_sklearn"}
# What the folders that belong to no package test.
WHOLE = {
    "bits": "the same bits of whole trainings, as recorded",
    "cases": "kinds of faults, each looked for at every entry point",
    "cpp": "the main function of the C++ tests, which lie beside their sources",
    "docs": "the README, the pages of the site and the examples of docstrings run",
    "examples": "the folder examples/",
    "faults": "ranks that are killed or stopped",
    "fuzz": "the parsers of file headers",
    "lint": "rules that the files themselves must follow",
    "packaging": "the wheel and its C interface",
    "process": "the whole package in a process: imports, forks, signals, exits",
}


def files_of_tests(folder):
    return sorted(folder.glob("test_*.py"))


PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))
FOLDERS = sorted(path for path in TESTS.iterdir() if any(path.glob("*.*")) and path.name != "__pycache__")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_tests(package):
    folder = TESTS / RENAMED.get(package, package)
    assert files_of_tests(folder), f"python/gradring/{package} has no test in {name(folder)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_every_folder_of_tests_is_named_after_what_it_tests(folder):
    mirrored = {RENAMED.get(package, package) for package in [*PACKAGES, *RENAMED]}
    native = {path.name for path in CSRC.iterdir() if path.is_dir()}
    assert folder.name in mirrored | native | WHOLE.keys(), (
        f"{name(folder)} mirrors no package: see {name(TESTS / 'lint')}"
    )


@pytest.mark.parametrize("test", files_of_tests(TESTS), ids=name)
def test_tests_beside_the_folders_are_named_after_modules(test):
    tested = test.stem.removeprefix("test_")
    assert any(tested == module or tested.startswith(f"{module}_") for module in MODULES), (
        f"{name(test)} is named after no module of python/gradring: tests of a package lie in its folder"
    )


def test_the_lists_above_are_not_out_of_date():
    known = {*PACKAGES, *MODULES}
    assert RENAMED.keys() - known == set()
    assert {folder for folder in [*WHOLE, *RENAMED.values()] if not (TESTS / folder).is_dir()} == set()
