"""``gradring bench step``: whole training steps of MLPs, against NumPy, PyTorch and the peers of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from .gemm import check_how, how_text, measured_peak
from .harness import Case, Contender, race, save
from .peers import contenders, read_peers
from .report import print_machine, print_rows, print_summary

OURS = "gradring"
CASES = (
    ((64, 32, 10), 32, "momentum"),
    ((784, 128, 10), 64, "momentum"),
    ((784, 256, 128, 10), 64, "momentum"),
    ((784, 1024, 1024, 10), 128, "momentum"),
    ((1024, 4096, 1024), 256, "momentum"),
    ((64, 32, 10), 32, "adam"),
    ((784, 128, 10), 64, "adam"),
    ((784, 256, 128, 10), 64, "adam"),
)
OPTIMIZERS = {"momentum": "", "sgd": ", SGD", "adam": ", Adam"}  # how the names of cases end
# How near losses must be, relative to that of the others.
AGREE = {"bfloat16": 1e-2, "float16": 2e-3, "pieces3": 1e-5, "pieces2": 1e-3}
PEERS = {
    "numpy by hand": "gradring.bench.step_by_hand:numpy_step",
    "torch by hand": "gradring.bench.step_by_hand:torch_step",
}


def flops(sizes: Sequence[int], batch: int) -> float:
    """Multiplications and additions of the matrix products: forward, dW, and dX for all layers but the first."""
    products = [i * o for i, o in pairwise(sizes)]
    return 2.0 * batch * (3 * sum(products) - products[0])


def run(
    *,
    rounds: int = 9,
    min_seconds: float = 0.05,
    peers: Sequence[str] = (),
    peers_from: Path | None = None,
    out: Path | None = None,
    dtype: str = "float32",
    products: str = "fma",
) -> None:
    """Runs the race against all peers, or those in `peers`, and prints it; with `out` it is also saved as JSON.

    With the `dtype` bfloat16 or float16, products read such matrices and the rest is float32: in ours, and in PyTorch
    (autocast) and JAX, which scale no loss, as ours does with float16; peers that are written by hand or know float32 alone
    compute in float32. `products` are those of ``gr.Trainer``.
    """
    if dtype == "float64":
        raise ValueError("[bench] --dtype float64 belongs to gemm, got step")
    how = how_text(dtype, products)
    check_how(dtype, products)
    cases = [
        Case(
            f"{'-'.join(map(str, sizes))} batch {batch}{OPTIMIZERS[optimizer]}",
            {"sizes": sizes, "batch": batch, "optimizer": optimizer, **how},
            flops(sizes, batch),
            agree=AGREE.get(" ".join(how.values()), 1e-5),
        )
        for sizes, batch, optimizer in CASES
    ]
    print_machine()
    more = read_peers(peers_from)
    ours = Contender(OURS, "gradring.bench.step_contenders:ours", ours=True)
    racers = [ours, *contenders(PEERS, more.step, more, peers)]
    rows, missing = race(racers, cases, rounds=rounds, min_seconds=min_seconds)
    unit, peak = measured_peak(dtype, products, None)
    print_rows(rows, OURS, peak=peak)
    print_summary(rows, OURS, missing, racers)
    if out:
        kind = " ".join(how.values()) or "fp32"
        title = f"MLP training step, SGD with momentum or Adam, {kind}"
        save(out, title, rows, OURS, missing, peak_flops=peak, peak_of=unit)
