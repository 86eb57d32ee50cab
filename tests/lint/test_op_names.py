"""Passes and sessions ask an op's declaration what it accepts and does: none of them compares its name with a known one."""

import ast

import pytest

from lint.source import PACKAGE, name

FILES = [*sorted((PACKAGE / "graph").rglob("*.py")), *sorted((PACKAGE / "session").rglob("*.py"))]


def is_op(node):
    """Whether an expression is the name of a node's or an instruction's op."""
    return isinstance(node, ast.Attribute | ast.Name) and getattr(node, "attr", getattr(node, "id", "")) == "op"


def texts(node):
    """The strings in an expression or a pattern."""
    return [c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)]


def comparisons(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(map(is_op, sides)) and any(texts(side) for side in sides):
                yield node
        elif isinstance(node, ast.Match) and is_op(node.subject) and any(texts(case.pattern) for case in node.cases):
            yield node
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and is_op(node.func.value)
            and any(texts(argument) for argument in node.args)
        ):
            yield node  # node.op.startswith("linear")
        elif isinstance(node, ast.Subscript) and is_op(node.slice) and isinstance(node.value, ast.Dict):
            yield node


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_op_is_known_by_its_name(path):
    tree = ast.parse(path.read_text())
    found = [f"line {node.lineno}: {ast.unparse(node)[:80]}" for node in comparisons(tree)]
    assert not found, "ask the op's schema (graph/schema.py), which csrc/ops/<op>/op.cc declares:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        'node.op == "linear"',
        '"linear" != made.op',
        'op in ("linear", "copy")',
        'instruction.op.startswith("linear")',
        'match node.op:\n  case "linear" | "copy":\n    pass',
        '{"linear": 1}[node.op]',
    ],
)
def test_the_rule_sees_a_comparison(code):
    assert list(comparisons(ast.parse(code)))


@pytest.mark.parametrize("code", ["node.op == update.op", 'node.phase == "update"', "fused[product, node.op]"])
def test_the_rule_leaves_alone_what_names_no_op(code):
    assert not list(comparisons(ast.parse(code)))
