"""The race's bookkeeping: rounds of several runs are pooled, and a file keeps them."""

from __future__ import annotations

import json

import pytest

from gradring.bench.harness import Case, Row, load, pooled, save


def row(name: str, **seconds: list[float]) -> Row:
    return Row(Case(name, {"op": name}, 2.0), seconds, {who: times[-1] for who, times in seconds.items()}, {})


def test_the_same_case_pools_its_rounds_and_others_are_added():
    first = [row("a", ours=[1.0, 2.0], peer=[4.0]), row("b", ours=[1.0])]
    second = [row("c", ours=[5.0]), row("a", ours=[9.0], late=[3.0])]
    a, b, c = pooled(first, second)
    assert [each.case.name for each in (a, b, c)] == ["a", "b", "c"]
    assert a.seconds == {"ours": [1.0, 2.0, 9.0], "peer": [4.0], "late": [3.0]}
    assert a.cpu_seconds == {"ours": 9.0, "peer": 4.0, "late": 3.0}
    assert b.seconds == {"ours": [1.0]} and c.seconds == {"ours": [5.0]}
    assert a.median("ours") == 2.0 and a.ratio("ours") == pytest.approx(1.5)


def test_a_file_keeps_the_rows_to_four_digits(tmp_path):
    path = tmp_path / "race.json"
    save(path, "a title", [row("a", ours=[1.23456e-6], peer=[2e-6])], "ours", {"absent": "not installed"}, peak=1.0)
    (read,) = load(path)
    assert read.case == Case("a", {"op": "a"}, 2.0)
    assert read.seconds == {"ours": [1.235e-6], "peer": [2e-6]}
    document = json.loads(path.read_text())
    assert document["title"] == "a title" and document["missing"] == {"absent": "not installed"}
    assert document["rows"][0]["best_peer"] == "peer" and document["rows"][0]["ratio"] == 1.62
