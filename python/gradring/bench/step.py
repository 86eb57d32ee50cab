"""``gradring bench step``: whole training steps of MLPs, against NumPy, PyTorch and JAX."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from .harness import Case, Contender, race, save
from .report import print_machine, print_rows, print_summary

OURS = "gradring"
CASES = (
    ((64, 32, 10), 32),
    ((784, 128, 10), 64),
    ((784, 256, 128, 10), 64),
    ((784, 1024, 1024, 10), 128),
    ((1024, 4096, 1024), 256),
)
PEERS = {
    "numpy by hand": "gradring.bench.step_by_hand:numpy_step",
    "torch": "gradring.bench.step_contenders:torch_eager",
    "torch.compile": "gradring.bench.step_contenders:torch_compiled",
    "torch by hand": "gradring.bench.step_by_hand:torch_step",
    "torch.compile by hand": "gradring.bench.step_by_hand:torch_step_compiled",
    "jax": "gradring.bench.step_contenders:jax_jit",
}


def contenders(ours: str, peers: dict[str, str], only: Sequence[str] = ()) -> list[Contender]:
    """Ours with all cores, and each peer with one thread and with all; of the peers `only` those, if it names any."""
    unknown = set(only) - set(peers)
    if unknown:
        raise ValueError(f"[bench] no peer is called {sorted(unknown)[0]!r}: must be one of {', '.join(peers)}")
    found = [Contender(OURS, ours, ours=True)]
    for name, factory in peers.items():
        if only and name not in only:
            continue
        found += [Contender(f"{name} 1", factory, threads=1), Contender(f"{name} all", factory)]
    return found


def flops(sizes: Sequence[int], batch: int) -> float:
    """Multiplications and additions of the matrix products: forward, dW, and dX for all layers but the first."""
    products = [i * o for i, o in pairwise(sizes)]
    return 2.0 * batch * (3 * sum(products) - products[0])


def run(*, rounds: int = 9, min_seconds: float = 0.05, peers: Sequence[str] = (), out: Path | None = None) -> None:
    """Runs and prints the race against all peers, or those named; `out` also saves it as JSON."""
    from gradring import _core

    cases = [
        Case(
            f"{'-'.join(map(str, sizes))} batch {batch}",
            {"sizes": sizes, "batch": batch},
            flops(sizes, batch),
            agree=1e-5,
        )
        for sizes, batch in CASES
    ]
    print_machine()
    racers = contenders("gradring.bench.step_contenders:ours", PEERS, peers)
    rows, missing = race(racers, cases, rounds=rounds, min_seconds=min_seconds)
    peak = _core.measure_peak_flops()
    print_rows(rows, OURS, peak=peak)
    print_summary(rows, OURS, missing)
    if out:
        save(out, "MLP training step, SGD with momentum, fp32", rows, OURS, missing, peak_flops=peak)
