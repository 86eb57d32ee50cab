"""Imports within the package point one way and make no cycle; what only type checkers read does not count."""

import ast

import pytest

from lint.source import PACKAGE, name

# What a topic must not know: everything that is built on it.
FACE = {"trainer", "callbacks", "cli", "bench", "history"}
MUST_NOT_IMPORT = {
    "errors": {"ops", "nn", "graph", "optim", "datasets", "loader", "checkpoint", "files", *FACE},
    "launch": {"ops", "nn", "graph", "optim", "datasets", "loader", "comm", "checkpoint", *FACE},
    "files": {"ops", "nn", "graph", "optim", "datasets", "loader", *FACE},
    "ops": {"nn", "graph", "optim", "datasets", "loader", "checkpoint", *FACE},
    "optim": {"nn", "graph", "datasets", "loader", "checkpoint", *FACE},
    "graph": {"datasets", "checkpoint", *FACE},
    "nn": {"datasets", "checkpoint", "optim", *FACE},
    "datasets": {"nn", "graph", "optim", "ops", "checkpoint", *FACE},
    "loader": {"nn", "graph", "optim", "checkpoint", *FACE},
    "checkpoint": {"nn", "graph", "optim", "datasets", *FACE},
    "history": {"nn", "graph", "optim", "trainer", "callbacks", "cli", "bench"},
    "callbacks": {"cli", "bench"},
    "trainer": {"cli", "bench"},
}


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def statements(body):
    """Statements that run when the module is imported."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for field in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from statements(getattr(node, field, []))


def imported(body, module):
    for node in statements(body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "gradring")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gradring":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


GRAPH = {module: set(imported(ast.parse(path.read_text()).body, module)) for module, path in MODULES.items()}


@pytest.mark.parametrize("module", sorted(MODULES), ids=lambda module: name(MODULES[module]))
def test_imports_point_downwards(module):
    topic = module.split(".")[1] if "." in module else ""
    for target in GRAPH[module]:
        other = target.split(".")[1] if "." in target else ""
        assert other not in MUST_NOT_IMPORT.get(topic, set()), f"{module} must not import {target}"


def test_no_import_cycle():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done or module not in GRAPH:
            return
        path.append(module)
        for target in sorted(GRAPH[module]):
            visit(target)
        path.pop()
        done.add(module)

    for module in sorted(GRAPH):
        visit(module)
    assert done == set(GRAPH)
