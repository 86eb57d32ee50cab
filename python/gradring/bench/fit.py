"""``gradring bench fit``: an epoch of Fashion-MNIST with ``fit``, against the peers' own hand-written loops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .harness import Case, Contender, race, save
from .peers import contenders, read_peers
from .report import print_machine, print_rows, print_summary
from .step import OURS

SIZES = (784, 256, 128, 10)
PEERS = {
    "numpy by hand": "gradring.bench.fit_by_hand:numpy_epoch",
    "torch by hand": "gradring.bench.fit_by_hand:torch_epoch",
}


def run(*, rounds: int = 5, peers: Sequence[str] = (), peers_from: Path | None = None, out: Path | None = None) -> None:
    """Runs the race against all peers, or those in `only`, and prints it; with `out` it is also saved as JSON."""
    cases = [Case("Fashion-MNIST epoch, batch 64", {"sizes": SIZES, "batch": 64})]
    print_machine()
    more = read_peers(peers_from)
    ours = Contender(OURS, "gradring.bench.fit_contenders:ours", ours=True)
    racers = [ours, *contenders(PEERS, more.fit, more, peers)]
    rows, missing = race(racers, cases, rounds=rounds, min_seconds=0.1)
    print_rows(rows, OURS)
    print_summary(rows, OURS, missing, racers)
    if out:
        save(out, f"Fashion-MNIST epoch, MLP {SIZES}, fp32", rows, OURS, missing)
