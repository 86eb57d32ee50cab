"""Loading work by PyTorch's DataLoader, tuned: whole batches, with no, one or two workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .loader_contenders import file_pass
from .loader_data import MEAN, STD, Ready, ReadyBatches, as_it_is, batches_of, images, prepare, rows_file
from .loader_pass import Pass
from .step_contenders import threads as bench_threads


def crop_and_flip_by_index(torch: Any, x: Any) -> Any:
    """Random crop of the padded batch and random flip, every pixel picked by one index expression."""
    n = len(x)
    padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (4, 4, 4, 4)).permute(0, 2, 3, 1)
    top, left = torch.randint(0, 9, (n, 1, 1)), torch.randint(0, 9, (n, 1, 1))
    rows, columns = torch.arange(32).view(1, 32, 1) + top, torch.arange(32).view(1, 1, 32) + left
    mirrored = torch.rand(n, 1, 1) < 0.5
    columns = torch.where(mirrored, left + 31 - torch.arange(32).view(1, 1, 32), columns)
    return padded[torch.arange(n).view(n, 1, 1), rows, columns]


def batches(case: dict[str, Any], *, workers: int, threads: int | None = None) -> Pass:
    """Loads whole batches (``__getitems__``). Without workers, PyTorch's own kernels use ``threads`` threads."""
    if case["work"] == "process":
        return process_pass(case, workers, batched=True)
    return work_pass(case, workers, batched=True, threads=threads)


def work_pass(
    case: dict[str, Any],
    workers: int,
    *,
    batched: bool,
    threads: int | None = None,
    crop_and_flip: Callable[[Any, Any], Any] = crop_and_flip_by_index,
) -> Pass:
    import torch
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(1 if workers else threads or bench_threads())
    work, batch = case["work"], case["batch"]
    mean, std = torch.from_numpy(MEAN * 255), torch.from_numpy(STD * 255)

    def finish(x: Any) -> Any:
        if work == "scale":
            return x.to(torch.float32).div_(255)
        if work != "augment":
            return x
        return crop_and_flip(torch, x).to(torch.float32).sub_(mean).div_(std).contiguous()

    class Samples(Dataset[Any]):  # type: ignore[misc]
        def __init__(self) -> None:
            in_file = work in ("warm", "cold")
            self.data = torch.from_numpy(np.load(rows_file(), mmap_mode="c") if in_file else images(work))

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, i: int) -> Any:
            return finish(self.data[i : i + 1])[0]

    class Batches(Samples):
        def __getitems__(self, indices: list[int]) -> Any:
            return finish(self.data[torch.as_tensor(indices)])

    prepare(case)

    def make() -> Any:
        return DataLoader(
            Batches() if batched else Samples(),
            batch,
            shuffle=True,
            num_workers=workers,
            collate_fn=as_it_is if batched else None,
            persistent_workers=workers > 0,
        )

    return file_pass(case, make)


def process_pass(case: dict[str, Any], workers: int, *, batched: bool) -> Pass:
    from torch.utils.data import DataLoader

    batch = case["batch"]
    source: Any = (ReadyBatches if batched else Ready)(case["mebibytes"], batch)

    def make() -> Any:
        return DataLoader(
            source,
            batch,
            sampler=range(1_000_000 * batch),
            num_workers=workers,
            collate_fn=as_it_is if batched else None,
        )

    return Pass(make, batches_of(case), endless=True)
