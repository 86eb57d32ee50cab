"""The examples in the docstrings of every module run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import gradring

MODULES = [
    module.name
    for module in pkgutil.walk_packages(gradring.__path__, "gradring.")
    if not module.name.endswith(("._core", ".libgradring", ".__main__"))
]
FINDER = doctest.DocTestFinder(exclude_empty=True)


@pytest.mark.parametrize("name", ["gradring", *MODULES])
def test_examples(name, tmp_path, monkeypatch):
    framework = name.split(".")[1:2]
    if framework in (["torch"], ["jax"], ["sklearn"]):
        pytest.importorskip(framework[0])
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in FINDER.find(module, name):
        runner.run(test)
    assert runner.failures == 0
