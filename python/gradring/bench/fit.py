"""``gradring bench fit``: an epoch of Fashion-MNIST with ``fit``, against the peers' own hand-written loops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .harness import Case, race, save
from .report import print_machine, print_rows, print_summary
from .step import OURS, contenders

SIZES = (784, 256, 128, 10)
PEERS = {
    "numpy by hand": "gradring.bench.fit_by_hand:numpy_epoch",
    "torch": "gradring.bench.fit_contenders:torch_eager",
    "torch.compile": "gradring.bench.fit_contenders:torch_compiled",
    "torch by hand": "gradring.bench.fit_by_hand:torch_epoch",
    "torch.compile by hand": "gradring.bench.fit_by_hand:torch_epoch_compiled",
    "jax": "gradring.bench.fit_contenders:jax_jit",
    "jax scan": "gradring.bench.fit_by_hand:jax_scan_epoch",
}


def run(*, rounds: int = 5, peers: Sequence[str] = (), out: Path | None = None) -> None:
    """Runs and prints the race against all peers, or those named; `out` also saves it as JSON."""
    cases = [Case("Fashion-MNIST epoch, batch 64", {"sizes": SIZES, "batch": 64})]
    print_machine()
    racers = contenders("gradring.bench.fit_contenders:ours", PEERS, peers)
    rows, missing = race(racers, cases, rounds=rounds, min_seconds=0.1)
    print_rows(rows, OURS)
    print_summary(rows, OURS, missing)
    if out:
        save(out, f"Fashion-MNIST epoch, MLP {SIZES}, fp32", rows, OURS, missing)
