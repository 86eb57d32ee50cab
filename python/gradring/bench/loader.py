"""``gradring bench loader``: batches ready to use, against other loaders and against memory itself."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gradring import _core

from .harness import Contender, Worker, format_seconds, spread, write
from .loader_data import write_rows
from .machine import core_round_trip, describe, least_round_trip, require_release_build
from .peers import Peers, chosen_names, read_peers
from .report import describe_cores, print_machine

OURS = "gradring"
_TRIES = 5
_OWN = {
    OURS: "loader_contenders:ours",
    "gradring, num_threads=0": "loader_contenders:ours threads=0",
    "gradring, num_threads=1": "loader_contenders:ours threads=1",
    "gradring, num_threads=2": "loader_contenders:ours threads=2",
}
_TORCH = {
    "torch batches, 0 workers": "loader_torch:batches workers=0",
    "torch batches, 0 workers, 1 thread": "loader_torch:batches workers=0 threads=1",
    "torch batches, 2 workers": "loader_torch:batches workers=2",
}
_NUMPY = {"numpy": "loader_contenders:numpy_slicing"}
_GATHER = {
    "ceiling: gather, 1 thread": "loader_contenders:gather threads=1",
    "ceiling: gather, 2 threads": "loader_contenders:gather threads=2",
}
_MEMCPY = {"ceiling: memcpy": "loader_contenders:gather threads=1 rows=in_order"}
_PREAD = {name.replace("gather", "pread"): function for name, function in _GATHER.items()}
_WORKERS = {name: function for name, function in _TORCH.items() if "0 workers" not in name}


@dataclass(frozen=True)
class Race:
    """One row of the table: its key for ``--only``, what it is, its parameters, and who runs."""

    key: str
    name: str
    parameters: dict[str, Any]
    contenders: dict[str, str]


def _process(mebibytes: int) -> Race:
    contenders = {name: f for name, f in _OWN.items() if name != "gradring, num_threads=0"} | _WORKERS
    parameters = {"work": "process", "batch": 16, "mebibytes": mebibytes}
    return Race(f"process{mebibytes}", f"worker processes, batches of {mebibytes} MiB", parameters, contenders)


_SCALE = _OWN | _NUMPY | _TORCH | _GATHER | _MEMCPY
RACES = (
    Race("scale64", "60000x784 uint8 -> fp32 scaled, shuffled, batch 64", {"work": "scale", "batch": 64}, _SCALE),
    Race("scale512", "60000x784 uint8 -> fp32 scaled, shuffled, batch 512", {"work": "scale", "batch": 512}, _SCALE),
    Race(
        "rows",
        "rows of 3x224x224 uint8, shuffled, batch 64",
        {"work": "rows", "batch": 64},
        _OWN | _NUMPY | _TORCH | _GATHER | _MEMCPY,
    ),
    Race(
        "warm",
        "the same from a file, warm",
        {"work": "warm", "batch": 64},
        _OWN | _NUMPY | _TORCH | _PREAD,
    ),
    Race(
        "cold",
        "the same from a file, cold",
        {"work": "cold", "batch": 64},
        _OWN | _NUMPY | _TORCH | _PREAD,
    ),
    Race(
        "augment",
        "crop, flip, normalize 32x32x3, batch 128",
        {"work": "augment", "batch": 128},
        _OWN | _TORCH,
    ),
    _process(2),
    _process(8),
    _process(32),
    Race(
        "first",
        "first batch, 2 worker processes, 64 MB of objects",
        {"work": "first", "batch": 16},
        {OURS: _OWN[OURS]},
    ),
    Race(
        "handoff",
        "hand-off of a ready batch to Python",
        {},
        {
            # Use a thread here: beside long steps the automatic choice is none, and then no batch is ready in advance.
            OURS: "loader_latency:ours_hand_off threads=1",
            "gradring, automatic": "loader_latency:ours_hand_off",
            "torch, 2 workers": "loader_latency:torch_hand_off",
        },
    ),
    Race(
        "slowdown",
        "a training step beside the loader",
        {},
        {OURS: "loader_latency:Slowdown how=fit", "gradring, step by step": "loader_latency:Slowdown how=loop"},
    ),
)


@dataclass
class Row:
    """The measurements of one race: for each contender, one dict of numbers per round."""

    race: Race
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    facts: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, name: str, what: str = "seconds") -> float:
        """The median of a measurement over the rounds."""
        return statistics.median(measured[what] for measured in self.rounds[name])

    def spread(self, name: str) -> float:
        """The spread of a contender's seconds."""
        return spread([measured["seconds"] for measured in self.rounds[name]])

    def best(self, *prefixes: str) -> str | None:
        """The fastest contender whose name begins with one of the prefixes."""
        return min((name for name in self.rounds if name.startswith(prefixes)), key=self.median, default=None)

    def ceiling(self) -> str | None:
        """The fastest ceiling that reads the same rows."""
        return self.best("ceiling: gather", "ceiling: pread")

    def peers(self) -> list[str]:
        """Other libraries."""
        return [name for name in self.rounds if not name.startswith((OURS, "ceiling"))]


def contenders(race: Race, more: Peers, only: Sequence[str] = ()) -> list[Contender]:
    """Ours, the ceilings, and the peers of the package and of a folder; of the peers only those in `only`, if any."""
    found = [Contender(name, f"gradring.bench.{factory}") for name, factory in race.contenders.items()]
    added = more.loader.get(race.key, {})
    found += [Contender(name, factory, folder=more.folder) for name, factory in added.items()]
    peers = [racer.name for racer in found if not racer.name.startswith((OURS, "ceiling"))]
    named = [name for name in peers if not only or name in only]
    return [racer for racer in found if racer.name not in peers or racer.name in named]


def run(
    *,
    rounds: int = 5,
    out: Path | None = None,
    only: Sequence[str] = (),
    peers: Sequence[str] = (),
    peers_from: Path | None = None,
) -> None:
    """Runs and prints the rows, or those in `only`. `out` saves them as JSON; rows that it has already are kept."""
    require_release_build()
    more = read_peers(peers_from)
    everyone = {racer.name for race in RACES for racer in contenders(race, more)}
    known = sorted(name for name in everyone if not name.startswith((OURS, "ceiling")))
    named = sorted(chosen_names(known, peers)) if peers else ()
    unknown = set(only) - {race.key for race in RACES}
    if unknown:
        raise ValueError(
            f"[bench] --only {', '.join(sorted(unknown))}: expected {', '.join(race.key for race in RACES)}"
        )
    print_machine()
    chosen = [race for race in RACES if not only or race.key in only]
    with tempfile.TemporaryDirectory(prefix="gradring-bench-") as folder:
        if any(race.key in ("warm", "cold") for race in chosen):
            os.environ["GRADRING_BENCH_FILE"] = os.path.join(folder, "rows.npy")
            write_rows(os.environ["GRADRING_BENCH_FILE"])
        for race in chosen:
            row = _run(race, contenders(race, more, named), rounds)
            _print(row)
            if out:
                _save(out, row)


def _run(race: Race, racers: Sequence[Contender], rounds: int) -> Row:
    row, able = Row(race), []
    workers = [Worker(racer) for racer in racers]
    try:
        for worker in workers:
            name = worker.contender.name
            reply: dict[str, Any] = {"error": f"not installed: {worker.missing}"} if worker.missing else {}
            reply = reply or worker.ask(do="prepare", case=race.parameters)
            if "error" in reply:
                row.failures[name] = reply["error"]
                continue
            row.facts[name] = reply
            able.append(worker)
        for turn in range(rounds):
            for worker in able if turn % 2 == 0 else reversed(able):
                reply = _turn(worker)
                if "error" in reply:
                    row.failures[worker.contender.name] = reply["error"]
                else:
                    row.rounds.setdefault(worker.contender.name, []).append(reply)
    finally:
        for worker in workers:
            worker.close()
    return row


def _turn(worker: Worker) -> dict[str, Any]:
    """Times one turn and measures how far apart the cores were. Repeats a turn if far cores were asked for and moved closer."""
    for _ in range(_TRIES):
        before = core_round_trip()
        reply = worker.ask(do="time")
        if "error" in reply:
            return reply
        after = _core.core_round_trip()
        if after >= least_round_trip():
            break
    return reply | {"core_round_trip": min(before, after)}


def _print(row: Row) -> None:
    print(f"\n{row.race.key}: {row.race.name}")
    if OURS not in row.rounds:
        print(f"  {OURS} failed: {row.failures.get(OURS)}")
        return
    mine = row.median(OURS)
    for name in sorted(row.rounds, key=row.median):
        parts = [f"  {name:34}{format_seconds(row.median(name)):>10} +-{100 * row.spread(name):3.0f} %"]
        parts.append(f"{row.median(name) / mine:7.2f}x")
        measured = row.rounds[name][0]
        if "cpu_seconds" in measured:
            parts.append(f"cpu {format_seconds(row.median(name, 'cpu_seconds')):>9}")
            parts.append(f"memory {row.median(name, 'memory_bytes') / 2**20:5.0f} MiB")
        if "first_seconds" in row.facts[name]:
            parts.append(f"first {format_seconds(row.facts[name]['first_seconds']):>9}")
        if "p99_seconds" in measured:
            parts.append(f"p99 {format_seconds(row.median(name, 'p99_seconds'))}")
        if "slowdown" in measured:
            parts.append(f"slowdown {100 * row.median(name, 'slowdown'):.1f} %")
        print("  ".join(parts))
    if ceiling := row.ceiling():
        print(f"  {OURS}: {100 * row.median(ceiling) / mine:.0f} % of {ceiling.removeprefix('ceiling: ')}")
    if trips := [measured["core_round_trip"] for rounds in row.rounds.values() for measured in rounds]:
        print(f"  {describe_cores(trips)}")
    for name, why in row.failures.items():
        print(f"  {name}: {why}")


def _save(path: Path, row: Row) -> None:
    """Adds the row to the file, where it replaces an older measurement of the same race."""
    found = json.loads(path.read_text())["rows"] if path.exists() else []
    mine = row.median(OURS) if OURS in row.rounds else None
    summary = {}
    for name in row.rounds:
        keys = row.rounds[name][0]
        summary[name] = {key: row.median(name, key) for key in keys} | row.facts[name] | {"spread": row.spread(name)}
        if mine:
            summary[name]["times_ours"] = row.median(name) / mine
    ceiling = row.ceiling()
    if mine and ceiling:
        summary[OURS]["part_of_ceiling"] = row.median(ceiling) / mine
    saved = {**asdict(row.race), "medians": summary, "rounds": row.rounds, "failures": row.failures}
    by_key = {other["key"]: other for other in (*found, saved)}
    rows = [by_key[race.key] for race in RACES if race.key in by_key]
    write(path, {"title": "Loading batches", "machine": describe(), "ours": OURS}, rows)
