"""``gradring bench allreduce``: float32 sums over processes, against gloo and, with ``--peers-from benchmarks/peers``, against
MPICH, Open MPI and Intel MPI.

Every library runs in processes of its own, which its own launcher starts, and which are pinned to one processor each. In
each round each library runs once per row; every second round goes in reverse order. Before each call the inputs are
rewritten outside the timer, and the ranks meet at a barrier that belongs to no library. The row's time is that of the
slowest rank, and afterwards every element is checked. Below 64 KiB a hundred calls, each on an array of its own, are timed
together. "Cold" rows use arrays of 128 MiB in all, which are first rewritten and then reduced one after another.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .allreduce_entrants import entrants
from .allreduce_group import Ranks
from .contender import load
from .harness import format_seconds, geometric_mean, write
from .machine import core_round_trip, describe
from .peers import read_peers
from .report import describe_cores, print_machine

OURS = "gradring"
_STAGED = "gradring, NumPy arrays"
_COLD_BYTES = 128 << 20  # four times a last-level cache
_TOGETHER = 100  # calls that are timed together, because one is shorter than a clock's reading


@dataclass(frozen=True)
class Case:
    """One row: bytes per rank, ranks, and whether the arrays are in caches."""

    name: str
    bytes: int
    ranks: int = 2
    cold: bool = False

    @property
    def together(self) -> bool:
        """Whether calls are timed together."""
        return self.bytes < 1 << 16

    @property
    def arrays(self) -> int:
        """How many arrays there are. Each is rewritten before its use."""
        return _TOGETHER if self.together else max(_COLD_BYTES // self.bytes, 2) if self.cold else 1

    @property
    def sweeps(self) -> int:
        """How many times a turn passes over all arrays."""
        return 1 if self.cold else 20 if self.ranks == 2 else 4


CASES = (
    Case("8 B", 8),
    Case("1 KiB", 1 << 10),
    Case("16 KiB", 16 << 10),
    Case("256 KiB warm", 256 << 10),
    Case("1 MiB warm", 1 << 20),
    Case("4 MiB warm", 4 << 20),
    Case("16 MiB cold", 16 << 20, cold=True),
    Case("64 MiB cold", 64 << 20, cold=True),
    Case("4 MiB, four ranks", 4 << 20, ranks=4),
)


@dataclass
class Row:
    """The measurements of a case: all seconds per call, by contender."""

    case: Case
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)  # the CPU time of all ranks together, per call, of each round
    failures: dict[str, str] = field(default_factory=dict)
    bounds: list[float] = field(default_factory=list)  # the seconds that the memory's bandwidth allows, of each round
    natives: list[tuple[float, float, float]] = field(default_factory=list)  # our p10, p50, p90 from C++, of each round

    def quantiles(self, name: str) -> tuple[float, float, float]:
        """p10, p50, p90."""
        times = self.seconds[name]
        if len(times) < 2:
            return times[0], times[0], times[0]
        tenths = statistics.quantiles(times, n=10, method="inclusive")
        return tenths[0], statistics.median(times), tenths[8]

    def median(self, name: str) -> float:
        """p50."""
        return statistics.median(self.seconds[name])

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """The medians of the rounds."""
        return {name: statistics.median(seconds) for name, seconds in self.cpu.items()}

    @property
    def bound(self) -> float:
        """The median of the rounds, or 0."""
        return statistics.median(self.bounds) if self.bounds else 0.0

    @property
    def native(self) -> tuple[float, float, float] | None:
        """The medians of the rounds' p10, p50 and p90."""
        if not self.natives:
            return None
        low, middle, high = (statistics.median(each) for each in zip(*self.natives, strict=True))
        return low, middle, high

    def best_peer(self, families: dict[str, str], family: str | None = None) -> str | None:
        """The fastest contender that is not ours, of one ``family`` if it is given."""
        peers = [n for n in self.seconds if families[n] != "ours" and family in (None, families[n])]
        return min(peers, key=self.median, default=None)


def run(out: Path | None = None, rounds: int | None = None, only: list[str] | None = None, peers: list[str] | None = None,
        peers_from: Path | None = None, native: Path | None = None, mpi_from: list[Path] | None = None) -> None:  # fmt: skip
    """Race, print the table, and write it to `out`.

    `only`: names of rows; `peers`: names of contenders, beside ours; `peers_from`: a folder of peers; `native`: the program
    comm_bench, for the bound and our times from C++; `mpi_from`: folders of further MPIs, with bin/mpiexec and lib/libmpi.so.
    """
    program = None if native is None else shutil.which(str(native))
    if native is not None and program is None:
        raise ValueError(f"[bench] --native: {native} is no program")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise RuntimeError("[bench] a race of two pinned processes needs two processors")
    if only and (unknown := set(only) - {case.name for case in CASES}):
        raise ValueError(f"[bench] --only: no row {sorted(unknown)[0]!r}; rows are {', '.join(c.name for c in CASES)}")
    cases = [case for case in CASES if not only or case.name in only]
    folder = read_peers(peers_from)
    if mpi_from and not folder.allreduce:
        raise ValueError("[bench] --mpi-from: give also --peers-from, a folder that knows how to call an MPI (ALLREDUCE)")
    families: dict[str, str] = {}
    if folder.allreduce:
        sys.path.append(folder.folder)
    rows = [Row(case) for case in cases]
    missing = dict(folder.unfair)
    abouts: dict[str, str] = {}
    trips: list[float] = []
    for ranks in sorted({case.ranks for case in cases}):
        some = [row for row in rows if row.case.ranks == ranks]
        sizes = sorted(row.case.bytes for row in some)
        more = load(folder.allreduce)(mpi_from or [], ranks, cores, sizes) if folder.allreduce else []
        chosen = [*entrants(), *more]
        chosen = [e for e in chosen if not peers or e.family == "ours" or e.name in peers]
        families.update({entrant.name: entrant.family for entrant in chosen})
        groups = [Ranks(entrant, ranks, cores) for entrant in chosen]
        try:
            for group in groups:
                if group.missing:
                    missing[group.entrant.name] = group.missing
                abouts[group.entrant.name] = group.about
            able = [group for group in groups if not group.missing]
            for row in some:
                print(f"racing {row.case.name} ...", flush=True)
                _race(row, able, rounds or 7, trips, program)
        finally:
            for group in groups:
                if not group.missing:
                    group.close()
    _print(rows, families, missing)
    if trips:
        print(describe_cores(trips))
    if out is not None:
        _save(out, rows, families, missing, abouts, trips)


def _race(row: Row, groups: list[Ranks], rounds: int, trips: list[float], native: str | None) -> None:
    case = row.case
    able = []
    for group in groups:
        answers = group.ask(do="prepare", elements=case.bytes // 4, arrays=case.arrays)
        if error := next((a["error"] for a in answers if "error" in a), None):
            row.failures[group.entrant.name] = error
        else:
            able.append(group)
    for turn in range(rounds):
        trips.append(core_round_trip())
        for group in able if turn % 2 == 0 else reversed(able):
            name = group.entrant.name
            if name in row.failures:
                continue
            answers = group.ask(do="time", sweeps=case.sweeps, each=not case.together)
            if error := next((a["error"] for a in answers if "error" in a), None):
                row.failures[name] = error
                continue
            slowest = [max(times) * 1e-9 for times in zip(*(a["nanoseconds"] for a in answers), strict=True)]
            row.seconds.setdefault(name, []).extend(slowest)
            row.cpu.setdefault(name, []).append(sum(a["cpu_seconds"] for a in answers))
        if native is not None:
            _race_native(row, native)


def _race_native(row: Row, program: str) -> None:
    """Let comm_bench have its turn."""
    case = row.case
    calls = max(case.sweeps * (1 if case.together else case.arrays), 4)
    command = [program, str(case.ranks), str(calls), str(case.bytes), "cold" if case.cold else "warm"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    read_native(done.stdout, row)


def read_native(text: str, row: Row) -> None:
    """Add a line of comm_bench to this row."""
    kind = "cold" if row.case.cold else "warm"
    number = r" +([\d.]+)"
    line = rf"^ *{row.case.bytes} {kind}{3 * number} us(?: +bound{number} us)?"
    found = re.search(line, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"[bench] --native: comm_bench has no line of {row.case.bytes} {kind}: {text[:200]!r}")
    low, middle, high = (float(number) * 1e-6 for number in found.groups()[:3])
    row.natives.append((low, middle, high))
    if found[4]:
        row.bounds.append(float(found[4]) * 1e-6)


def _print(rows: list[Row], families: dict[str, str], missing: dict[str, str]) -> None:
    print_machine()
    for row in rows:
        print(f"\n{row.case.name}, {row.case.ranks} ranks on 2 cores")
        for name in sorted(row.seconds, key=row.median):
            low, middle, high = map(format_seconds, row.quantiles(name))
            cpu = format_seconds(row.cpu_seconds[name])
            print(f"  {name:28} p10 {low:>9}  p50 {middle:>9}  p90 {high:>9}  CPU of all ranks {cpu:>9}")
        if row.native is not None:
            low, middle, high = map(format_seconds, row.native)
            print(f"  {'gradring from C++':28} p10 {low:>9}  p50 {middle:>9}  p90 {high:>9}")
        for ours in (OURS, _STAGED):
            if ours in row.seconds:
                print(f"  {ours}: {_ratios(row, ours, families)}")
        for name, why in row.failures.items():
            print(f"  {name} failed: {why}")
    for ours in (OURS, _STAGED):
        ratios = {row.case.name: _ratio(row, ours, families) for row in rows if ours in row.seconds}
        known = {name: ratio for name, ratio in ratios.items() if not math.isnan(ratio)}
        if known:
            lost = [name for name, ratio in known.items() if ratio < 1]
            mean = geometric_mean(known.values())
            print(f"\n{ours}, ratio to the best peer: geometric mean {mean:.2f}x; rows lost: {lost or 'none'}")
    for name, why in missing.items():
        print(f"missing: {name}: {why}")


def _ratio(row: Row, ours: str, families: dict[str, str], family: str | None = None) -> float:
    peer = row.best_peer(families, family)
    return math.nan if peer is None or ours not in row.seconds else row.median(peer) / row.median(ours)


def _ratios(row: Row, ours: str, families: dict[str, str]) -> str:
    parts = [
        f"{_ratio(row, ours, families, family):.2f}x the speed of {peer}"
        for family in ("gloo", "mpi")
        if (peer := row.best_peer(families, family)) is not None
    ]
    if row.bound:
        parts.append(f"{100 * row.bound / row.median(ours):.0f} % of what the memory allows")
    return ", ".join(parts) or "no peer"


def _save(
    out: Path,
    rows: list[Row],
    families: dict[str, str],
    missing: dict[str, str],
    abouts: dict[str, str],
    trips: list[float],
) -> None:
    document = {
        "title": "all-reduce of float32 sums, seconds per call",
        "machine": describe(),
        "ours": OURS,
        "missing": missing,
        "libraries": abouts,
        "core_round_trips": [min(trips, default=0.0), max(trips, default=0.0)],
    }
    write(
        out,
        document,
        [
            {
                "name": row.case.name,
                "bytes": row.case.bytes,
                "ranks": row.case.ranks,
                "cold": row.case.cold,
                "p10_p50_p90": {name: list(row.quantiles(name)) for name in row.seconds},
                "calls": {name: len(times) for name, times in row.seconds.items()},
                "cpu_seconds": row.cpu_seconds,
                "native": list(row.native or []),
                "bound": row.bound,
                "best_peer": row.best_peer(families),
                "ratio": _ratio(row, OURS, families),
                "ratio_staged": _ratio(row, _STAGED, families),
                "failures": row.failures,
            }
            for row in rows
        ],
    )
