"""A test that cannot fail is no test."""

import ast
import re

import pytest

from lint.source import CSRC, ROOT, name, without_comments

PYTHON = sorted((ROOT / "tests").rglob("test_*.py"))
CPP = sorted(CSRC.rglob("*_test.cc"))


def checks(node):
    """Whether the code asserts something itself or calls something that says it does."""
    for child in ast.walk(node):
        if isinstance(child, ast.Assert):
            return True
        if isinstance(child, ast.Call):
            called = ast.unparse(child.func).split(".")[-1]
            if called in {"raises", "fail", "warns", "run_state_machine_as_test"} or re.match(
                r"_?(assert|check|compare|expect|require)", called
            ):
                return True
    return False


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_python_tests_assert(path):
    tree = ast.parse(path.read_text())
    tests = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    helpers = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and checks(n)}
    for test in tests:
        called = {ast.unparse(n.func) for n in ast.walk(test) if isinstance(n, ast.Call)}
        assert checks(test) or called & helpers, f"{test.name} asserts nothing"


@pytest.mark.parametrize("path", CPP, ids=name)
def test_cpp_tests_check(path):
    text = without_comments(path.read_text())
    helpers = set(re.findall(r"\b(\w*(?:check|expect|compare|require|hold)\w*)\s*\(", text))
    for case in re.split(r"\bTEST_CASE(?:_TEMPLATE)?\b", text)[1:]:
        called = set(re.findall(r"\b(\w+)\s*(?:<[^;(]*>)?\(", case))
        assert re.search(r"\b(CHECK|REQUIRE)", case) or called & helpers, f"{case.splitlines()[0]} checks nothing"
