"""``gradring bench fit``: an epoch of Fashion-MNIST with ``fit``, against the peers' own hand-written loops."""

from __future__ import annotations

from pathlib import Path

from .harness import Case, race, save
from .report import print_machine, print_rows, print_summary
from .step import OURS, contenders

SIZES = (784, 256, 128, 10)


def run(*, rounds: int = 5, out: Path | None = None) -> None:
    """Runs and prints the race; `out` also saves it as JSON."""
    functions = {"torch": "torch_eager", "torch.compile": "torch_compiled", "jax": "jax_jit"}
    cases = [Case("Fashion-MNIST epoch, batch 64", {"sizes": SIZES, "batch": 64})]
    print_machine()
    rows, missing = race(contenders("gradring.bench.fit_contenders", functions), cases, rounds=rounds, min_seconds=0.1)
    print_rows(rows, OURS)
    print_summary(rows, OURS, missing)
    if out:
        save(out, f"Fashion-MNIST epoch, MLP {SIZES}, fp32", rows, OURS, missing)
