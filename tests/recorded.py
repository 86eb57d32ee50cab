"""Runs in one environment what another lacked the means for.

With ``GRADRING_TESTS_RECORD=FILE`` a run writes the names of the tests that have passed to the file, one per line. With
``GRADRING_TESTS_RECORDED=FILE`` a run leaves these tests out, except those in ``AGAIN``; without the file it runs all of them.
"""

import os
from pathlib import Path

import pytest

# What depends on how the package was installed.
AGAIN = ("tests/packaging/", "tests/test_trainer.py", "tests/ops/test_every_op.py")


class Record:
    """Writes the names of the tests that have passed when a run ends."""

    def __init__(self, file):
        self.file, self.passed = Path(file), []

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed.append(report.nodeid)

    def pytest_sessionfinish(self):
        self.file.write_text("".join(f"{name}\n" for name in self.passed), encoding="utf-8")


class Rest:
    """Leaves out the tests that a file names."""

    def __init__(self, file):
        path = Path(file)
        self.passed = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        left_out = [item for item in items if item.nodeid in self.passed and not item.nodeid.startswith(AGAIN)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            names = {item.nodeid for item in left_out}
            items[:] = [item for item in items if item.nodeid not in names]


def install(config):
    """Do what the variables ask for."""
    if file := os.environ.get("GRADRING_TESTS_RECORD"):
        config.pluginmanager.register(Record(file))
    if file := os.environ.get("GRADRING_TESTS_RECORDED"):
        config.pluginmanager.register(Rest(file))
