"""``gradring bench gemm``: matrix products and dense layers, against NumPy (OpenBLAS), PyTorch (MKL) and a folder's peers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from .harness import Case, Contender, Row, geometric_mean, load, pooled, race, save
from .peers import contenders, read_peers
from .report import print_machine, print_rows, print_summary

OURS = "gradring"
MODULE = "gradring.bench.gemm_contenders"
PEERS = {name: f"{MODULE}:{name}" for name in ("numpy", "torch")}
ROWS = (1, 16, 64, 100, 256, 1024)
SIDES = (10, 64, 128, 300, 784, 1024, 2048)
FLAGS = tuple(product((False, True), repeat=2))
BLOCK = 24  # how many cases a contender's turn has
LAYERS = ((64, 784, 256), (256, 1024, 1024), (256, 1024, 4096), (32, 64, 32))

# The default cases: shapes of training steps, and a sample of the grid.
SAMPLE = (
    (32, 64, 64),
    (64, 256, 784),
    (64, 784, 256),
    (784, 256, 64),
    (1, 1024, 784),
    (16, 1024, 300),
    (100, 300, 300),
    (256, 10, 784),
    (256, 1024, 10),
    (1024, 1024, 1024),
)


def matmul_case(m: int, n: int, k: int, trans_a: bool, trans_b: bool) -> Case:
    """One product: a transposed operand lies transposed in memory."""
    letters = "NT"[trans_a] + "NT"[trans_b]
    parameters: dict[str, Any] = {"op": "matmul", "m": m, "n": n, "k": k, "trans_a": trans_a, "trans_b": trans_b}
    return Case(f"{m}x{n}x{k} {letters}", parameters, 2.0 * m * n * k, bytes=4 * (m * k + k * n + m * n))


def layer_cases(rows: int, inner: int, outer: int) -> list[Case]:
    """A dense layer with bias and gelu, forward and backward."""
    sizes = {"rows": rows, "in": inner, "out": outer}
    flops = 2.0 * rows * inner * outer
    return [
        Case(f"linear+bias+gelu {rows}x{inner}->{outer}", {"op": "linear", **sizes}, flops),
        Case(f"its backward {rows}x{inner}->{outer}", {"op": "linear_vjp", **sizes}, 2 * flops),
    ]


def cases(*, full: bool, sample: int = 0) -> list[Case]:
    """All 1176 products, or `sample` random ones of them, or a few common ones; and always 2048³ and the dense layers."""
    if full or sample:
        found = [matmul_case(m, n, k, *flags) for m, n, k in product(ROWS, SIDES, SIDES) for flags in FLAGS]
        if sample:
            found = random.Random(0).sample(found, min(sample, len(found)))
    else:
        found = [matmul_case(*shape, *flags) for shape in SAMPLE for flags in FLAGS]
    found.append(matmul_case(2048, 2048, 2048, False, False))
    for layer in LAYERS:
        found += layer_cases(*layer)
    return found


def shard_of(found: list[Case], shard: tuple[int, int]) -> list[Case]:
    """Every n-th case, from the i-th on, of (i, n)."""
    return found[shard[0] - 1 :: shard[1]]


def run(
    *,
    full: bool = False,
    sample: int = 0,
    shard: tuple[int, int] = (1, 1),
    rounds: int | None = None,
    min_seconds: float = 0.002,
    select: str = "",
    add: bool = False,
    peers: Sequence[str] = (),
    peers_from: Path | None = None,
    out: Path | None = None,
) -> None:
    """Runs and prints the race; `select` keeps cases whose names contain it; `out` also saves everything as JSON.

    Shard (i, n) is the i-th of n runs over the same cases: from the second on, and with `add` all, they add to `out`.
    """
    from gradring import _core

    chosen = shard_of([case for case in cases(full=full, sample=sample) if select in case.name], shard)
    more = read_peers(peers_from)
    racers = [Contender(OURS, f"{MODULE}:ours", ours=True), *contenders(PEERS, more.gemm, more, peers)]
    print_machine()
    peak = _core.measure_peak_flops()
    rows, missing = race(
        racers,
        chosen,
        rounds=rounds or (3 if full else 5),
        min_seconds=min_seconds,
        block=BLOCK,
    )
    peak = max(peak, _core.measure_peak_flops())
    print(f"measured peak: {peak / 1e9:.0f} GFLOP/s of fp32 multiply-adds on {_core.get_num_threads()} threads")
    print_rows(rows, OURS, peak=peak)
    if out and (add or shard[0] > 1) and out.exists():
        rows = pooled(load(out), rows)
    print_summary(rows, OURS, missing, racers)
    print_groups(rows)
    by_ratio = sorted((row for row in rows if row.seconds.get(OURS)), key=lambda row: row.ratio(OURS))
    print("the worst rows: " + ", ".join(f"{row.case.name} {row.ratio(OURS):.2f}x" for row in by_ratio[:12]))
    if out:
        save(out, "matrix products and dense layers, fp32", rows, OURS, missing, peak_flops=peak)


def print_groups(rows: Sequence[Row]) -> None:
    """A line for each m, each transposition, and the layers: geometric mean, worst row, rows lost."""
    products = [row for row in rows if row.case.parameters["op"] == "matmul" and row.seconds.get(OURS)]

    def line(name: str, chosen: Callable[[Row], bool], among: Sequence[Row] = products) -> None:
        ratios = {row.case.name: row.ratio(OURS) for row in among if chosen(row)}
        if not ratios:
            return
        worst = min(ratios, key=lambda case: ratios[case])
        lost = sum(ratio < 1 for ratio in ratios.values())
        print(
            f"{name:8} geometric mean {geometric_mean(ratios.values()):.2f}x, worst {ratios[worst]:.2f}x ({worst}),"
            f" {lost} of {len(ratios)} lost"
        )

    for m in ROWS:
        line(f"m={m}", lambda row, m=m: row.case.parameters["m"] == m)  # type: ignore[misc]
    for letters in ("NN", "NT", "TN", "TT"):
        line(letters, lambda row, letters=letters: row.case.name.endswith(letters))  # type: ignore[misc]
    line("products", lambda row: row.case.parameters["m"] in ROWS)
    line("layers", lambda row: row.case.parameters["op"] != "matmul", [row for row in rows if row.seconds.get(OURS)])
