"""Loading work by PyTorch's DataLoader in other ways: sample by sample, and with crops as windows of a strided view."""

from __future__ import annotations

from typing import Any

from gradring.bench.loader_data import Ready, ballast
from gradring.bench.loader_pass import Pass
from gradring.bench.loader_torch import process_pass, work_pass


def crop_and_flip_by_window(torch: Any, x: Any) -> Any:
    """Random crops and flips: it picks one of the 81 windows of each image, and mirrors half of the batch."""
    n = len(x)
    padded = torch.nn.functional.pad(x, (0, 0, 4, 4, 4, 4))
    windows = padded.unfold(1, 32, 1).unfold(2, 32, 1)  # (n, 9, 9, channels, 32, 32)
    picked = windows[torch.arange(n), torch.randint(0, 9, (n,)), torch.randint(0, 9, (n,))]
    mirrored = torch.rand(n) < 0.5
    picked[mirrored] = picked[mirrored].flip(-1)
    return picked.permute(0, 2, 3, 1)


def samples(case: dict[str, Any], *, workers: int, start: str = "spawn") -> Pass:
    """Sample by sample; `start` is how the workers of the first batch's race begin."""
    if case["work"] == "process":
        return process_pass(case, workers, batched=False)
    if case["work"] == "first":
        return _first(case, workers, start)
    return work_pass(case, workers, batched=False)


def windows(case: dict[str, Any], *, workers: int, threads: int | None = None) -> Pass:
    """DataLoader by whole batches, whose crops are windows of a strided view."""
    return work_pass(case, workers, batched=True, threads=threads, crop_and_flip=crop_and_flip_by_window)


def _first(case: dict[str, Any], workers: int, start: str) -> Pass:
    from torch.utils.data import DataLoader

    batch = case["batch"]
    heavy: Any = Ready(1, batch, ballast())

    def make() -> Any:
        return DataLoader(
            heavy, batch, sampler=range(1_000_000 * batch), num_workers=workers, multiprocessing_context=start
        )

    return Pass(make, 1, fresh=True)
