"""``gradring bench dp``: data-parallel training steps of two ranks, against one process on two threads and every peer.

A step has a fixed global batch, of which each rank has a half, and AdamW in float32. The ranks of a peer are processes, or
the devices of one process; the slowest rank's time counts, and what all of them use of the processors.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .dp_more import growth, memory, updates
from .harness import Case, Contender, race, save
from .peers import chosen_names, read_peers
from .report import print_machine, print_rows, print_summary
from .step import flops

__all__ = ["CASES", "OURS", "contenders", "run"]

OURS = "gradring, 2 processes"
REPLICAS = "gradring, 2 replicas"
RANKS = 2
CASES = (
    ((784, 1024, 1024, 10), 256),
    ((784, 128, 10), 128),
)
ONE_RANK = "gradring, 1 rank of 2 threads"
WAYS = (REPLICAS, ONE_RANK)
# XLA reads it; other libraries ignore it.
_TWO_DEVICES = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={RANKS}"}


def contenders(peers_from: Path | None, only: Sequence[str] = ()) -> list[Contender]:
    """Ours on two ranks, processes and threads, and on one, and the peers that `only` names, or all."""
    more = read_peers(peers_from)
    chosen = chosen_names(list(more.dp), only) if more.dp or only else set()
    ways = {OURS: "our_ranks", REPLICAS: f"ours replicas={RANKS}", ONE_RANK: "ours replicas=1"}
    return [
        Contender(name, f"gradring.bench.dp_contenders:{way}", threads=RANKS, ours=True) for name, way in ways.items()
    ] + [
        Contender(
            name,
            factory,
            threads=RANKS,
            environment=_TWO_DEVICES,
            folder=more.folder,
            differs=more.difference_of(name),
        )
        for name, factory in more.dp.items()
        if name in chosen
    ]


def run(
    *,
    rounds: int = 9,
    min_seconds: float = 0.2,
    peers: Sequence[str] = (),
    peers_from: Path | None = None,
    out: Path | None = None,
) -> None:
    """Runs the race against all peers, or those in `peers`, and prints it; with `out` it is also saved as JSON."""
    cases = [
        Case(
            f"{'-'.join(map(str, sizes))} global batch {batch}",
            {"sizes": sizes, "batch": batch, "ranks": RANKS, "min_seconds": min_seconds},
            flops(sizes, batch),
            agree=1e-4,
        )
        for sizes, batch in CASES
    ]
    custom = {"sizes": (64, 10), "batch": 128, "ranks": RANKS, "min_seconds": min_seconds, "custom": True}
    cases.append(Case("gradients of a NumPy function, global batch 128", custom, agree=1e-4))
    print_machine()
    racers = contenders(peers_from, peers)
    rows, missing = race(racers, cases, rounds=rounds, min_seconds=min_seconds)
    # Our other ways are not peers, but what two processes are measured by; and some work no peer does.
    others: dict[str, Any] = {
        row.case.name: {way: row.seconds.pop(way) for way in WAYS if way in row.seconds} for row in rows
    }
    found = {row.case.name: row.seconds[OURS] for row in rows if OURS in row.seconds}
    raced = [row for row in rows if row.best_peer(OURS) is not None]
    print_rows(raced, OURS)
    for name, seconds in found.items():
        for way, theirs in others[name].items():
            ratio = statistics.median(theirs) / statistics.median(seconds)
            print(f"{name}: {ratio:.2f}x the speed of {way}")
        others[name][OURS] = seconds
    print_summary(raced, OURS, missing, racers)
    others["reduce and update"] = updates()
    others["memory"] = memory(peers_from)
    others["growth"] = [row for sizes, batch in CASES for row in growth(sizes, batch, min_seconds=min_seconds)]
    if out:
        save(out, "data-parallel training step of two ranks, AdamW, fp32", raced, OURS, missing, others=others)
