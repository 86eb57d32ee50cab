"""``gradring bench loader``: batches ready to use, against PyTorch's DataLoader, NumPy slicing and memory itself."""

from __future__ import annotations

import time
from pathlib import Path

from .harness import Case, Contender, race, save
from .report import print_machine, print_rows, print_summary

OURS = "gradring"
_CONTENDERS = {
    OURS: "ours",
    "gradring, no threads": "ours_without_threads",
    "numpy": "numpy_slicing",
    "ceiling": "ceiling",
    "torch samples": "torch_samples_0",
    "torch samples x2": "torch_samples_2",
    "torch batches": "torch_batches_0",
    "torch batches x2": "torch_batches_2",
}
CASES = (
    Case("60000x784 uint8 -> fp32 scaled, shuffled, batch 64", {"work": "scale", "batch": 64}),
    Case("60000x784 uint8 -> fp32 scaled, shuffled, batch 512", {"work": "scale", "batch": 512}),
    Case("rows of 3x224x224 uint8, shuffled, batch 64", {"work": "rows", "batch": 64}),
    Case("the same from a memory-mapped file, warm", {"work": "map", "batch": 64}),
    Case("crop, flip, normalize 32x32x3, batch 128", {"work": "augment", "batch": 128}),
    Case("2 processes, batches of 2 MiB", {"work": "process", "batch": 16, "mebibytes": 2}),
    Case("2 processes, batches of 8 MiB", {"work": "process", "batch": 16, "mebibytes": 8}),
    Case("2 processes, batches of 32 MiB", {"work": "process", "batch": 16, "mebibytes": 32}),
    Case("first batch, 2 spawned processes, 64 MB of objects", {"work": "first", "batch": 16}),
)


def run(*, rounds: int = 5, out: Path | None = None) -> None:
    """Runs and prints the race; `out` also saves it as JSON. ``ceiling`` is no loader: it is what memory can do."""
    module = "gradring.bench.loader_contenders"
    contenders = [Contender(name, f"{module}:{function}", ours=name == OURS) for name, function in _CONTENDERS.items()]
    print_machine()
    rows, missing = race(contenders, CASES, rounds=rounds, min_seconds=0.05)
    for row in rows:
        # Who does not do a case says so by ValueError: no failure of its own.
        row.failures = {name: why for name, why in row.failures.items() if not why.startswith("ValueError")}
    print_rows(rows, OURS)
    for row in rows:
        if "ceiling" in row.seconds and OURS in row.seconds:
            print(f"{row.case.name}: {100 * row.median('ceiling') / row.median(OURS):.0f} % of the ceiling")
    print_summary(rows, OURS, missing)
    half, nearly_all = hand_off()
    print(f"hand-off of a ready batch to Python: p50 {half * 1e6:.1f} us, p99 {nearly_all * 1e6:.1f} us")
    if out:
        save(out, "Loading batches", rows, OURS, missing, hand_off_p50=half, hand_off_p99=nearly_all)


def hand_off(batches: int = 2000) -> tuple[float, float]:
    """Seconds from asking for a batch that is ready to having it, median and 99th percentile, with a pause between."""
    import numpy as np

    import gradring as gr

    with gr.Loader((np.zeros((batches * 64, 784), np.uint8), np.zeros(batches * 64)), 64, num_threads=1) as loader:
        for _ in loader:
            time.sleep(0.0005)
        stats = loader.stats()
    return stats.hand_off_p50, stats.hand_off_p99
