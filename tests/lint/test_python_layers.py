"""Imports within the package point one way and make no cycle, hidden imports included."""

import ast

import pytest

from lint.source import PACKAGE, name

# The topics that a topic must not import: everything that is built on it.
FACE = {"trainer", "trainer_base", "resume", "callbacks", "cli", "bench", "history"}
MUST_NOT_IMPORT = {
    "errors": {"ops", "nn", "graph", "optim", "datasets", "loader", "checkpoint", "files", *FACE},
    "cuda_devices": {"ops", "nn", "graph", "optim", "datasets", "loader", "checkpoint", "files", *FACE},
    "launch": {"ops", "nn", "graph", "optim", "datasets", "loader", "comm", "checkpoint", *FACE},
    "files": {"ops", "nn", "graph", "optim", "datasets", "loader", *FACE},
    "ops": {"nn", "graph", "optim", "datasets", "loader", "checkpoint", *FACE},
    "optim": {"nn", "graph", "datasets", "loader", "checkpoint", *FACE},
    "graph": {"datasets", "checkpoint", "loader", "nn", "optim", "session", *FACE},
    "session": {"datasets", "checkpoint", "files", *FACE},
    "nn": {"datasets", "checkpoint", "graph", "loader", "optim", "session", *FACE},
    "datasets": {"nn", "graph", "optim", "ops", "checkpoint", *FACE},
    "loader": {"nn", "graph", "optim", "checkpoint", *FACE},
    "state_values": {"nn", "graph", "optim", "session", *FACE},
    "checkpoint": {"nn", "graph", "optim", "datasets", *FACE},
    "history": {"nn", "graph", "optim", "trainer", "callbacks", "cli", "bench"},
    "callbacks": {"cli", "bench"},
    "trainer": {"cli", "bench"},
    "trainer_base": {"trainer", "cli", "bench"},
    "resume": {"trainer", "trainer_base", "cli", "bench"},
}


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def statements(body):
    """The statements that run when the module is imported."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for field in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from statements(getattr(node, field, []))


# The module in which each name lies that `gradring` itself shows.
HOMES = {
    key.value: f"gradring.{value.value}"
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text()))
    if isinstance(node, ast.Dict)
    for key, value in zip(node.keys, node.values, strict=True)
    if isinstance(key, ast.Constant) and isinstance(value, ast.Constant) and f"gradring.{value.value}" in MODULES
}


def imported(body, module):
    for node in statements(body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "gradring")
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                is_package = module in MODULES and MODULES[module].name == "__init__.py"
                parts = module.split(".")
                source = ".".join([*parts[: len(parts) - node.level + is_package], *filter(None, [source])])
            if source.split(".")[0] == "gradring":
                for alias in node.names:
                    full = f"{source}.{alias.name}"
                    yield full if full in MODULES else HOMES.get(alias.name, source) if source == "gradring" else source
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and str(first.value).split(".")[0] == "gradring":
                yield str(first.value)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("gradring", "gr"):
            home = HOMES.get(node.attr, f"gradring.{node.attr}")
            if home in MODULES:
                yield home


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


def topic_of(module):
    return module.split(".")[1] if "." in module else ""


def every_import(path, module):
    """Imports in functions and behind TYPE_CHECKING too: they hide a cycle, and do not remove it. Two other kinds hide one as
    well: imports by the text of a name, and what is read from `gradring`, which imports a module at its first use."""
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call | ast.Attribute)]
    return set(imported(nodes, module))


def cycles(edges):
    """Sets of topics that reach each other."""

    def reached(topic):
        found, left = set(), [topic]
        while left:
            new = edges.get(left.pop(), set()) - found
            found |= new
            left += new
        return found

    all_reached = {topic: reached(topic) for topic in edges}
    together = {frozenset(b for b in near if topic in all_reached.get(b, ())) for topic, near in all_reached.items()}
    return {topics for topics in together if len(topics) > 1}


EVERY_IMPORT = {module: every_import(path, module) for module, path in MODULES.items()}


def test_no_cycle_of_topics_hides_in_a_function_or_behind_type_checking():
    edges = {}
    for module, targets in EVERY_IMPORT.items():
        for target in targets:
            if topic_of(module) and topic_of(target) and topic_of(module) != topic_of(target):
                edges.setdefault(topic_of(module), set()).add(topic_of(target))
    assert [sorted(found) for found in cycles(edges)] == []


def test_no_cycle_of_modules_hides_in_a_function_or_behind_type_checking():
    # A package and a module in it import each other by name alone: "gradring" stands for everything that is exported.
    edges = {
        module: {target for target in targets if target not in (module, "gradring") and target in MODULES}
        for module, targets in EVERY_IMPORT.items()
    }
    assert [sorted(found) for found in cycles(edges)] == []


# What a topic may import at all, hidden imports included. Below these are modules that know of no topic.
MAY_IMPORT = {
    "hooks": set(),
    "ir": set(),
    "nn": {"ir"},
    "ops": {"ir"},
    "graph": {"ir", "ops"},
    "session": {"graph", "ir", "loader", "losses", "metrics", "nn", "ops", "optim"},
}
BELOW = {
    "_core",
    "arguments",
    "arrays",
    "attributes",
    "choices",
    "cuda",
    "devices",
    "errors",
    "float32_products",
    "habits",
    "hooks",
    "options",
    "patterns",
    "planned",
    "tables",
    "",
}


@pytest.mark.parametrize("topic", sorted(MAY_IMPORT))
def test_the_layers_of_a_step(topic):
    found = {
        topic_of(target) for module, targets in EVERY_IMPORT.items() if topic_of(module) == topic for target in targets
    }
    assert found - {topic} - BELOW <= MAY_IMPORT[topic]


def test_the_search_for_cycles_finds_them():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}
    assert cycles({"a": {"b"}, "b": {"c"}}) == set()


def test_hidden_imports_are_seen(tmp_path):
    module = tmp_path / "m.py"
    module.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from gradring.trainer import Trainer\n"
        "class A:\n    def f(self):\n        import gradring.loader\n"
    )
    assert every_import(module, "gradring.m") == {"gradring.trainer", "gradring.loader"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from ..session import Session", "gradring.session"),
        ("from .. import session", "gradring.session"),
        ("from .fuse import fuse", "gradring.graph.fuse"),
        ("importlib.import_module('gradring.trainer')", "gradring.trainer"),
        ("import_module('gradring.trainer')", "gradring.trainer"),
        ("__import__('gradring.trainer')", "gradring.trainer"),
        ("from gradring import Trainer", "gradring.trainer"),
        ("return gr.Trainer", "gradring.trainer"),
        ("return gradring.loader.Loader", "gradring.loader"),
    ],
)
def test_imports_by_other_means_are_seen(tmp_path, line, found):
    module = tmp_path / "m.py"
    module.write_text(f"def f():\n    {line}\n")
    assert every_import(module, "gradring.graph.m") == {found}
