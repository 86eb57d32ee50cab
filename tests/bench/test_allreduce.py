"""The race of all-reduces: inputs are rewritten, wrong sums are found, ratios are those of the best peer."""

import sys
from pathlib import Path

import numpy as np
import pytest

from gradring.bench import allreduce, allreduce_group
from gradring.bench.allreduce import CASES, Case, Row, _ratio, read_native
from gradring.bench.allreduce_entrants import Entrant, entrants
from gradring.bench.allreduce_group import Ranks
from gradring.bench.allreduce_libraries import LIBRARIES, Library, _numpy
from gradring.bench.allreduce_rank import _Case

FOLDER = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def folder(monkeypatch):
    """The modules of benchmarks/peers can be imported."""
    monkeypatch.syspath_prepend(str(FOLDER))


def summed_of_two(library_sum, elements=100):
    """Rank 0 of two, whose other rank is arithmetic: what it would have added."""
    case = _Case(Library(_numpy, lambda array: lambda _: None, ""), 0, 2, elements, 3)
    case.rewrite()
    for i, array in enumerate(case.arrays):
        other = case._sum - case._own + (case._turn * 7 + i * 3 + 1) % 1000
        array.reshape(other.shape)[...] += library_sum(other)
    return case


@pytest.mark.parametrize("elements", [2, 100, 3 * 2048])
def test_right_sums_pass_and_wrong_ones_do_not(elements):
    summed_of_two(lambda other: other, elements).check()
    for wrong in (
        lambda other: other * 0,
        lambda other: other + 1,
        lambda other: other[:, ::-1],
        lambda other: np.roll(other, 1, axis=other.shape[0] == 1),
    ):
        with pytest.raises(ArithmeticError, match="a wrong sum in turn 1"):
            summed_of_two(wrong, elements).check()


def test_the_bytes_that_arrays_are_rewritten_from_stay_in_the_nearest_cache():
    case = _Case(Library(_numpy, lambda array: lambda _: None, ""), 0, 2, 1 << 20, 1)
    for view in (case._own, case._sum):
        extent = sum((count - 1) * stride for count, stride in zip(view.shape, view.strides, strict=True))
        assert view.size == 1 << 20 and extent < 16384
    with pytest.raises(ValueError, match="a multiple of it"):
        _Case(Library(_numpy, lambda array: lambda _: None, ""), 0, 2, 5000, 1)


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
    assert "No module named 'nothing'" in ranks.missing


SLOW_RANK = """
import json, socket, sys, time
with socket.socket(socket.AF_UNIX) as link:
    link.connect(sys.argv[1] + "/turns")
    with link.makefile("rw") as turns:
        print(json.dumps({"rank": 0}), file=turns, flush=True)
        turns.readline()
        time.sleep(6)
        print(json.dumps({"rank": 0, "nanoseconds": [1]}), file=turns, flush=True)
        turns.readline()
"""


@pytest.mark.parametrize("limit", [60.0, 0.5])
def test_a_turn_has_its_own_limit_which_is_not_that_of_the_start(monkeypatch, limit):
    monkeypatch.setattr(allreduce_group, "_START_SECONDS", 5.0)
    monkeypatch.setattr(allreduce_group, "_TURN_SECONDS", limit)
    ranks = Ranks(Entrant("slow", (sys.executable, "-c", SLOW_RANK), ()), 1, [0])
    try:
        assert ranks.missing is None
        (answer,) = ranks.ask(do="time")
        assert ("error" in answer) == (limit < 6), answer
    finally:
        ranks.close()


def test_native_lines_are_read():
    row = Row(Case("16 MiB cold", 16 << 20, cold=True))
    for middle in (4000, 4200, 9000):
        read_native(f"  16777216 cold    3600.00    {middle}.00    9500.00 us  bound    {middle - 500}.00 us\n", row)
    assert row.native == pytest.approx((3.6e-3, 4.2e-3, 9.5e-3)) and row.bound == pytest.approx(3.7e-3)
    warm = Row(Case("8 B", 8))
    read_native("         8 warm       0.33       0.35       0.38 us\n", warm)
    assert warm.native == pytest.approx((3.3e-7, 3.5e-7, 3.8e-7)) and warm.bound == 0
    with pytest.raises(ValueError, match="comm_bench has no line of 8 warm"):
        read_native("        16 warm       0.33       0.35       0.38 us\n", warm)


def test_each_size_gets_its_fastest_algorithm(folder):
    from allreduce_tuning import tuned

    class Group:
        """Algorithm 2 is fast up to 1,000 bytes, 7 beyond; 3 fails at large sizes, and the others do not start."""

        def __init__(self, entrant, ranks, cores):
            self.algorithm = int(entrant.environment["CHOICE"])
            self.missing = None if self.algorithm in (2, 3, 7) else "its ranks did not start"

        def ask(self, **request):
            if request["do"] == "prepare":
                self.bytes = 4 * request["elements"]
                failed = self.algorithm == 3 and self.bytes > 1000
                return [{"error": "no"} if failed else {"ready": True}] * 2
            took = {2: 5 if self.bytes <= 1000 else 90, 3: 6, 7: 50}[self.algorithm]
            return [{"nanoseconds": [took] * 3}, {"nanoseconds": [1] * 3}]

        def close(self):
            pass

    mpi = Entrant("MPI", (), ("mpi",), {"A": "b"}, "mpi")
    (best,) = tuned(mpi, "CHOICE", 2, [0, 1], [8, 512, 4096], Group)
    assert best.environment == {"A": "b", "CHOICE": "2:0-8;2:9-512;7:513-4096"}
    assert best.name == "MPI, best algorithms"


def test_an_mpi_of_a_folder_is_told_by_its_library(folder, tmp_path):
    from allreduce_mpi import mpis

    for kind, library in (("mpich5", "libmpi.so.12"), ("ompi5", "libmpi.so.40")):
        for name in ("bin/mpiexec", f"lib/{library}"):
            path = tmp_path / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o755)
    found = mpis([tmp_path / "mpich5", tmp_path / "ompi5"])
    names = [entrant.name for entrant in found]
    assert "MPICH of mpich5" in names and "Open MPI of ompi5" in names
    with pytest.raises(ValueError, match="must have bin/mpiexec"):
        mpis([tmp_path])
    assert all(entrant.library == ("allreduce_mpi:library",) and entrant.folder == str(FOLDER) for entrant in found)


def test_a_folder_of_peers_says_who_races_and_where_the_ranks_find_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "peers.py").write_text("ALLREDUCE = 'mine:entrants'\nUNFAIR = {'other': 'it has no call'}\n")
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.setattr(allreduce, "_TOGETHER", 3)
    monkeypatch.setattr(sys, "path", [*sys.path])
    allreduce.run(rounds=1, only=["8 B"], peers=["mine"], peers_from=tmp_path)
    said = capsys.readouterr().out
    assert "x the speed of mine" in said and "missing: other: it has no call" in said, said
    with pytest.raises(ValueError, match="--mpi-from: give also --peers-from"):
        allreduce.run(rounds=1, only=["8 B"], mpi_from=[tmp_path])


MINE = """
from pathlib import Path
from gradring.bench.allreduce_entrants import Entrant, entrants as own
from gradring.bench.allreduce_libraries import LIBRARIES

def entrants(mpi_from, ranks, cores, sizes):
    assert (ranks, sizes) == (2, [8]) and len(cores) == 2
    return [Entrant("mine", own()[0].launcher, ("mine:library", "numpy=1"), family="mpi", folder=str(Path(__file__).parent))]

def library(*given, **options):
    return LIBRARIES["ours"](*given, **options)
"""
