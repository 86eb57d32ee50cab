"""``gradring bench fit``: epochs with ``fit``, of Fashion-MNIST and of small data sets, against the peers' own loops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .harness import Case, Contender, race, save
from .peers import contenders, read_peers
from .report import print_machine, print_rows, print_summary
from .step import OPTIMIZERS, OURS, flops

SIZES = (784, 256, 128, 10)
# Small data sets: sizes, batch, rows, epochs of a call. The times are per step.
SMALL = (
    ((64, 32, 10), 32, 1440, 20),
    ((784, 128, 10), 64, 5760, 5),
    ((784, 256, 128, 10), 64, 5760, 5),
)
PEERS = {
    "numpy by hand": "gradring.bench.fit_by_hand:numpy_epoch",
    "torch by hand": "gradring.bench.fit_by_hand:torch_epoch",
}


def cases() -> list[Case]:
    """An epoch of Fashion-MNIST, and a step of each small fit."""
    first = Case(
        "Fashion-MNIST epoch, batch 64", {"sizes": SIZES, "batch": 64, "optimizer": "momentum", "epochs": 1}, agree=1e-4
    )
    small = [
        Case(
            f"fit, {'-'.join(map(str, sizes))} batch {batch}{OPTIMIZERS[optimizer]}, {rows} rows: a step",
            {"sizes": sizes, "batch": batch, "optimizer": optimizer, "rows": rows, "epochs": epochs},
            flops(sizes, batch),
            agree=1e-4,
            steps=epochs * rows // batch,
        )
        for sizes, batch, rows, epochs in SMALL
        for optimizer in ("adam", "sgd")
    ]
    return [first, *small]


def run(*, rounds: int = 5, peers: Sequence[str] = (), peers_from: Path | None = None, out: Path | None = None) -> None:
    """Runs the race against all peers, or those in `peers`, and prints it; with `out` it is also saved as JSON."""
    print_machine()
    more = read_peers(peers_from)
    ours = Contender(OURS, "gradring.bench.fit_contenders:ours", ours=True)
    racers = [ours, *contenders(PEERS, more.fit, more, peers)]
    rows, missing = race(racers, cases(), rounds=rounds, min_seconds=0.1)
    print_rows(rows, OURS)
    print_summary(rows, OURS, missing, racers)
    if out:
        save(out, "Epochs of MLPs with fit, fp32", rows, OURS, missing)
