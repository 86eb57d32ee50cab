"""``gradring bench step``: whole training steps of MLPs, against PyTorch eager and compiled, and JAX."""

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


def contenders(module: str, functions: dict[str, str]) -> list[Contender]:
    """Ours with all cores, and each peer with one thread and with all."""
    found = [Contender(OURS, f"{module}:ours", ours=True)]
    for name, function in functions.items():
        for threads in (1, None):
            flags = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"} if "jax" in name and threads == 1 else {}
            label = f"{name} {'1' if threads else 'all'}"
            found.append(Contender(label, f"{module}:{function}", threads, flags))
    return found


def flops(sizes: Sequence[int], batch: int) -> float:
    """Multiplications and additions of the matrix products: forward, dW, and dX for all layers but the first."""
    products = [i * o for i, o in pairwise(sizes)]
    return 2.0 * batch * (3 * sum(products) - products[0])


def run(*, rounds: int = 9, min_seconds: float = 0.05, out: Path | None = None) -> None:
    """Runs and prints the race; `out` also saves it as JSON."""
    from gradring import _core

    functions = {"torch": "torch_eager", "torch.compile": "torch_compiled", "jax": "jax_jit"}
    cases = [
        Case(f"{'-'.join(map(str, sizes))} batch {batch}", {"sizes": sizes, "batch": batch}, flops(sizes, batch))
        for sizes, batch in CASES
    ]
    print_machine()
    rows, missing = race(
        contenders("gradring.bench.step_contenders", functions), cases, rounds=rounds, min_seconds=min_seconds
    )
    peak = _core.measure_peak_flops() if hasattr(_core, "measure_peak_flops") else 0.0
    print_rows(rows, OURS, peak=peak)
    print_summary(rows, OURS, missing)
    if out:
        save(out, "MLP training step, SGD with momentum, fp32", rows, OURS, missing, peak_flops=peak)
