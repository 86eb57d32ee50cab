"""No code knows an op, a loss or an optimizer by its name. Passes and sessions ask an op's declaration what it accepts and
does, and all code asks the object that describes a loss or an optimizer."""

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


# The words by which losses and optimizers are known, from the classes that declare them.
DECLARING = [*sorted((PACKAGE / "losses").glob("*.py")), *sorted((PACKAGE / "optim").glob("*.py"))]


def kinds_in(tree):
    """The values of `kind: ClassVar[str] = "..."` in classes."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.AnnAssign)
            and ast.unparse(node.target) == "kind"
            and isinstance(node.value, ast.Constant)
        ):
            yield node.value.value


KINDS = {kind for path in DECLARING for kind in kinds_in(ast.parse(path.read_text()))}

# A command's options and an estimator's arguments are words that a user types, a benchmark races named rivals, a metric may be
# called as a loss is, and an op's file may know its own op.
OTHERS = ("cli", "sklearn", "bench", "metrics", "ops")
EVERYWHERE = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in OTHERS]


def choices_by_kind(tree, kinds):
    """Comparisons with the name of a loss or an optimizer, and tables by such names."""

    def named(node):
        return isinstance(node, ast.Constant | ast.Tuple | ast.Set | ast.List) and kinds & set(texts(node))

    for node in ast.walk(tree):
        match node:
            case ast.Compare():
                found = any(map(named, [node.left, *node.comparators]))
            case ast.Match():
                found = any(kinds & set(texts(case.pattern)) for case in node.cases)
            case ast.Dict():
                found = any(map(named, node.keys))
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith")):
                found = any(map(named, node.args))
            case _:
                found = False
        if found:
            yield node


def test_the_words_are_found():
    assert {"cross_entropy", "mse", "function_loss", "adamw", "lion"} <= KINDS


@pytest.mark.parametrize("path", EVERYWHERE, ids=name)
def test_no_loss_and_no_optimizer_is_known_by_its_name(path):
    found = [
        f"line {node.lineno}: {ast.unparse(node)[:80]}" for node in choices_by_kind(ast.parse(path.read_text()), KINDS)
    ]
    assert not found, "ask the loss (losses/base.py) or the optimizer (optim/base.py):\n" + "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        'loss.kind == "cross_entropy"',
        'kind in ("mse", "mae")',
        '{"sgd": _sgd}[rule.kind]',
        'match rule.kind:\n  case "adamw":\n    pass',
        'kind.startswith("binary_cross_entropy")',
        '"adam" != optimizer.native()[0]',
    ],
)
def test_the_rule_sees_a_choice_by_kind(code):
    assert list(choices_by_kind(ast.parse(code), KINDS))


@pytest.mark.parametrize("code", ['kind: str = "mse"', 'loss="cross_entropy"', "a.kind == b.kind", 'x == "input"'])
def test_the_rule_leaves_alone_a_default_and_other_words(code):
    assert not list(choices_by_kind(ast.parse(code), KINDS))
