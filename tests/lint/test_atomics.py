"""Every atomic operation names its memory order, and every file with atomics has a table that says why."""

import re

import pytest

from lint.source import CSRC, cpp_files, name, without_comments

OPERATION = re.compile(
    r"(?:\.|->)(load|store|exchange|fetch_\w+|compare_exchange_\w+|test_and_set|wait|notify_\w+)\s*\("
)
DECLARED = re.compile(r"std::atomic(?:_ref)?<[^;()]*?>\s*>?\s+&?(\w+)\s*[;{(\[=]")
FILES = [path for path in cpp_files() if "std::atomic" in without_comments(path.read_text())]


def arguments(text, start):
    """The text of the parenthesis that opens before `start`, without that of parentheses within it."""
    depth, own = 1, ""
    for character in text[start:]:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return own
        own += character if depth == 1 else ""
    raise AssertionError("unbalanced parentheses")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_operation_names_its_order(path):
    text = without_comments(path.read_text())
    declared = set(DECLARED.findall(text))
    for match in OPERATION.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        owner = re.search(r"(\w+)(?:\[[^\]]*\])?$", text[: match.start()])
        if owner is None or owner.group(1) not in declared:
            continue  # a method of something else
        assert match.group(1) not in {"wait", "notify_one", "notify_all"}, f"line {line}: futexes go through wait.h"
        orders = re.findall(r"memory_order\w*", arguments(text, match.end()))
        # One order may stand for success and failure where it is the weakest.
        both = match.group(1).startswith("compare_exchange") and orders != ["memory_order_relaxed"]
        assert len(orders) == 1 + both, f"line {line}: {match.group(1)} names {len(orders)} of {1 + both} memory orders"
    # Names that do not end in _ may also be those of other variables: an assignment does not tell, and tests count with them.
    for variable in declared:
        own = variable.endswith("_")
        if not own and "_test" in path.stem:
            continue
        before, operators = (r"\b", r"\+\+|--|[-+|&^]=|=[^=]") if own else (r"(?<![\w.>])", r"\+\+|--|[-+|&^]=")
        silent = re.search(rf"(\+\+|--)\s*{variable}\b(?!\s*(\.|->|\[))|{before}{variable}\s*({operators})", text)
        assert silent is None, f"{variable}: operators on an atomic name no order"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_atomic_is_declared_where_these_checks_see_it(path):
    """Other names for atomic types would hide a variable from the tables."""
    text = without_comments(path.read_text())
    assert not re.search(r"\busing\s+\w+\s*=[^;]*std::atomic\b|\btypedef\b[^;]*std::atomic\b|using std::atomic\b", text)
    other = re.search(r"std::atomic_(?!ref\b|thread_fence\b|signal_fence\b)\w+", text)
    assert other is None, f"{other[0]}: declare a std::atomic<T>"


@pytest.mark.parametrize(
    "path", [path for path in FILES if "_test" not in path.stem and "_bench" not in path.stem], ids=name
)
def test_a_table_says_who_writes_and_reads_each_atomic(path):
    texts = [path.with_suffix(suffix) for suffix in (".h", ".cc")]
    tables = [text for text in texts if text.exists() and re.search(r"// \| variable +\|.*order", text.read_text())]
    assert tables, (
        f"{path.relative_to(CSRC)} has atomics and no table `// | variable | writer | readers | order | why |`"
    )


# Not in a table yet. Take a name out when you give it a row; add none.
UNLISTED = {}


def rows_of_tables(path):
    """The first cells of the tables in a file and in its header or source."""
    for text in (path.with_suffix(suffix) for suffix in (".h", ".cc")):
        if text.exists():
            yield from re.findall(r"^// \| ([^|]*?) *\|.*\|$", text.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "path", [path for path in FILES if "_test" not in path.stem and "_bench" not in path.stem], ids=name
)
def test_every_atomic_has_a_row(path):
    listed = {word for cell in rows_of_tables(path) for word in re.findall(r"\w+", cell)}
    text = without_comments(path.read_text())
    is_reference = r"atomic<[^;()]*>\s*&\s*{}\b".format
    own = {variable for variable in DECLARED.findall(text) if not re.search(is_reference(variable), text)}
    missing = own - listed - UNLISTED.get(name(path), set())
    assert not missing, f"{name(path)}: no table has a row for {', '.join(sorted(missing))}"


def test_tables_are_tables():
    """A row of each table is one line with as many columns as its head: a formatter may have wrapped it."""
    for path in cpp_files():
        lines = path.read_text().splitlines()
        for first, line in enumerate(lines):
            if re.match(r"// \| variable +\|", line):
                columns = line.count("|")
                for at in range(first, next(i for i in range(first, len(lines)) if not lines[i].startswith("// |"))):
                    assert lines[at].count("|") == columns, f"{name(path)}:{at + 1}: {lines[at]}"
                    assert lines[at].endswith("|"), f"{name(path)}:{at + 1}: {lines[at]}"
                    assert lines[at] == line or len(lines[at]) == len(line), f"{name(path)}:{at + 1}: not aligned"
