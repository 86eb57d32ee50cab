"""``gradring bench gemm``: matrix products and dense layers, against NumPy (OpenBLAS), PyTorch (MKL) and a folder's peers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
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
ITEM = {"float32": 4, "float64": 8, "bfloat16": 2}  # bytes
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
# More cases for products by pieces, which are for large matrices: a cube, and a layer of a batch.
PIECED = ((512, 512, 512), (128, 1024, 1024))


def how_text(dtype: str, products: str) -> dict[str, str]:
    """The parameters of cases that differ from float32 by multiply-adds."""
    chosen = {"dtype": (dtype, "float32"), "products": (products, "fma")}
    return {name: value for name, (value, usual) in chosen.items() if value != usual}


def matmul_case(m: int, n: int, k: int, trans_a: bool, trans_b: bool, *, how: Mapping[str, str] = {}) -> Case:
    """One product: a transposed operand lies transposed in memory."""
    letters = "NT"[trans_a] + "NT"[trans_b]
    parameters: dict[str, Any] = {"op": "matmul", "m": m, "n": n, "k": k, "trans_a": trans_a, "trans_b": trans_b}
    item = ITEM[how.get("dtype", "float32")]
    size = item * (m * k + k * n + m * n)
    return Case(f"{m}x{n}x{k} {letters}", {**parameters, **how}, 2.0 * m * n * k, bytes=size)


def layer_cases(rows: int, inner: int, outer: int, how: Mapping[str, str] = {}) -> list[Case]:
    """A dense layer with bias and gelu, forward and backward."""
    sizes = {"rows": rows, "in": inner, "out": outer, **how}
    flops = 2.0 * rows * inner * outer
    return [
        Case(f"linear+bias+gelu {rows}x{inner}->{outer}", {"op": "linear", **sizes}, flops),
        Case(f"its backward {rows}x{inner}->{outer}", {"op": "linear_vjp", **sizes}, 2 * flops),
    ]


def cases(*, full: bool, sample: int = 0, how: Mapping[str, str] = {}) -> list[Case]:
    """All 1176 products, or `sample` random ones of them, or a few common ones; and always 2048³ and the dense layers.

    Products by pieces have two more.
    """
    if full or sample:
        found = [matmul_case(m, n, k, *flags, how=how) for m, n, k in product(ROWS, SIDES, SIDES) for flags in FLAGS]
        if sample:
            found = random.Random(0).sample(found, min(sample, len(found)))
    else:
        found = [matmul_case(*shape, *flags, how=how) for shape in SAMPLE for flags in FLAGS]
    more: tuple[tuple[int, int, int], ...] = PIECED if "products" in how else ()
    found += [matmul_case(*shape, False, False, how=how) for shape in (*more, (2048, 2048, 2048))]
    for layer in LAYERS:
        found += layer_cases(*layer, how)
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
    dtype: str = "float32",
    products: str = "fma",
    threads: int | None = None,
    out: Path | None = None,
) -> None:
    """Runs and prints the race; `select` keeps cases whose names contain it; `out` also saves everything as JSON.

    The operands are of `dtype`. `products` says how float32 products are computed (``gr.set_float32_products``). With
    `threads`, every contender has that many threads. Beside the times stands the largest error of an element, relative to
    the sum of the absolute values of its terms.

    Shard (i, n) is the i-th of n runs over the same cases: from the second on, and with `add` all, they add to `out`.
    """
    if dtype == "float16":
        raise ValueError("[bench] --dtype float16 belongs to step, got gemm")
    how = how_text(dtype, products)
    check_how(dtype, products)
    chosen = shard_of([case for case in cases(full=full, sample=sample, how=how) if select in case.name], shard)
    more = read_peers(peers_from)
    ours = Contender(OURS, f"{MODULE}:ours", threads, ours=True)
    racers = [ours, *contenders(PEERS, more.gemm, more, peers, threads)]
    print_machine()
    unit, peak = measured_peak(dtype, products, threads)
    rows, missing = race(
        racers,
        chosen,
        rounds=rounds or (3 if full else 5),
        min_seconds=min_seconds,
        block=BLOCK,
        check=f"{MODULE}:error_of",
    )
    peak = max(peak, measured_peak(dtype, products, threads)[1])
    print(f"measured peak: {peak / 1e9:.0f} GFLOP/s of {unit}")
    print_rows(rows, OURS, peak=peak, errors=True)
    if out and (add or shard[0] > 1) and out.exists():
        rows = pooled(load(out), rows)
    print_summary(rows, OURS, missing, racers)
    print_groups(rows)
    by_ratio = sorted((row for row in rows if row.seconds.get(OURS)), key=lambda row: row.ratio(OURS))
    print("the worst rows: " + ", ".join(f"{row.case.name} {row.ratio(OURS):.2f}x" for row in by_ratio[:12]))
    if out:
        kind = " ".join(how.values()) or "fp32"
        save(out, f"matrix products and dense layers, {kind}", rows, OURS, missing, peak_flops=peak, peak_of=unit)


def check_how(dtype: str, products: str) -> None:
    """ValueError or ImportError for a choice that cannot be run here."""
    if dtype == "float32":
        return
    if products != "fma":
        raise ValueError(f"[bench] --products {products} is a way to multiply float32: --dtype is {dtype}")
    if dtype in ("float64", "float16"):
        return
    try:
        import ml_dtypes  # noqa: F401
    except ImportError:
        raise ImportError("[bench] --dtype bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from None


def measured_peak(dtype: str, products: str, threads: int | None) -> tuple[str, float]:
    """The unit that multiplies, and its measured rate. Of products by pieces it does several operations for each of ours."""
    import gradring as gr
    from gradring import _core

    before = gr.get_num_threads()
    gr.set_num_threads(threads or before)
    try:
        count = gr.get_num_threads()
        on = f"on {count} thread{'s' * (count > 1)}"
        if dtype == "float64":
            return f"fp64 multiply-adds {on}", _core.measure_peak_flops(wide=True)
        if dtype == "bfloat16" and _core.bf16_way() == "dots":
            return f"vdpbf16ps {on}", _core.measure_tile_flops(dots=True)
        tiles = _core.measure_tile_flops() if dtype == "bfloat16" or products != "fma" else 0.0
        if tiles:
            terms = {"pieces3": 6, "pieces2": 3}.get(products, 1)
            per = f", divided by the {terms} products that a float32 product takes," if terms > 1 else ""
            return f"the tile unit's bf16 products{per} {on}", tiles / terms
        return f"fp32 multiply-adds {on}", _core.measure_peak_flops()
    finally:
        gr.set_num_threads(before)


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
