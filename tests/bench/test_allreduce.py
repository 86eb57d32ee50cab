"""The race of all-reduces: inputs are rewritten, wrong sums are found, ratios are those of the best peer."""

import pytest

from gradring.bench.allreduce import CASES, Case, Row, _ratio, read_native
from gradring.bench.allreduce_group import Entrant, Ranks, entrants
from gradring.bench.allreduce_libraries import LIBRARIES, Library, _numpy
from gradring.bench.allreduce_rank import _Case


def summed_of_two(library_sum):
    """Rank 0 of two, whose other rank is arithmetic: what it would have added."""
    case = _Case(Library(_numpy, lambda array: lambda _: None, ""), 0, 2, 100, 3)
    case.rewrite()
    for i, array in enumerate(case.arrays):
        other = case._sum - case._own + (case._turn * 7 + i * 3 + 1) % 1000
        array += library_sum(other)
    return case


def test_right_sums_pass_and_wrong_ones_do_not():
    summed_of_two(lambda other: other).check()
    for wrong in (lambda other: other * 0, lambda other: other + 1, lambda other: other[::-1]):
        with pytest.raises(ArithmeticError, match="a wrong sum in turn 1"):
            summed_of_two(wrong).check()


def test_a_call_that_does_nothing_is_found_in_every_turn():
    case = summed_of_two(lambda other: other)
    case.check()
    case.rewrite()
    with pytest.raises(ArithmeticError, match="turn 2"):
        case.check()


def test_the_ratio_is_to_the_best_peer():
    row = Row(CASES[0], {"gradring": [1.0, 1.0, 9.0], "a": [5.0], "b": [3.0, 4.0], "staged": [0.1]})
    families = {"gradring": "ours", "staged": "ours", "a": "gloo", "b": "mpi"}
    assert row.best_peer(families) == "b" and _ratio(row, "gradring", families) == 3.5
    assert _ratio(row, "gradring", families, "gloo") == 5.0
    assert row.quantiles("gradring")[1] == 1.0


def test_cold_rows_go_over_more_than_a_cache():
    for case in CASES:
        assert case.arrays * case.bytes >= 128 << 20 if case.cold else case.arrays in (1, 100)
    assert Case("x", 8).together and not Case("x", 1 << 20).together


def test_ranks_have_their_turns_and_end(tmp_path):
    ours = entrants()[0]
    ranks = Ranks(ours, 2, [0, 0])
    try:
        assert ranks.missing is None and ranks.about
        assert all(
            answer == {"rank": answer["rank"], "ready": True}
            for answer in ranks.ask(do="prepare", elements=4, arrays=5)
        )
        answers = ranks.ask(do="time", sweeps=3, each=False)
        assert sorted(answer["rank"] for answer in answers) == [0, 1]
        assert all(len(answer["nanoseconds"]) == 3 for answer in answers)
    finally:
        ranks.close()
    assert ranks._process.returncode is not None


def test_a_library_that_is_not_there_is_missing():
    launcher = entrants()[0].launcher
    assert "nothing" not in LIBRARIES
    ranks = Ranks(Entrant("nothing", launcher, ("nothing",)), 2, [0, 0])
    assert "KeyError: 'nothing'" in ranks.missing


def test_native_lines_are_read():
    row = Row(Case("16 MiB cold", 16 << 20, cold=True))
    text = "2 ranks; loads and stores of all: 20.0 GB/s\n"
    text += "  16777216 cold    3600.00    4000.00    5000.00 us   83.9 % of the bound\n"
    read_native(text, [row])
    assert row.native == (3.6e-3, 4e-3, 5e-3)
    assert row.bound == 2 * 2 * (16 << 20) / 20e9
