"""Loading work by PyTorch's DataLoader: none, one or two workers, sample by sample or by whole batches."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .loader_contenders import file_pass
from .loader_data import MEAN, STD, Ready, ReadyBatches, as_it_is, ballast, batches_of, images, prepare, rows_file
from .loader_pass import Pass


def crop_and_flip_by_index(torch: Any, x: Any) -> Any:
    """Random crop of the padded batch and random flip, every pixel picked by one index expression."""
    n = len(x)
    padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (4, 4, 4, 4)).permute(0, 2, 3, 1)
    top, left = torch.randint(0, 9, (n, 1, 1)), torch.randint(0, 9, (n, 1, 1))
    rows, columns = torch.arange(32).view(1, 32, 1) + top, torch.arange(32).view(1, 1, 32) + left
    mirrored = torch.rand(n, 1, 1) < 0.5
    columns = torch.where(mirrored, left + 31 - torch.arange(32).view(1, 1, 32), columns)
    return padded[torch.arange(n).view(n, 1, 1), rows, columns]


def crop_and_flip_by_window(torch: Any, x: Any) -> Any:
    """The same by picking one of the 81 windows of each image, and mirroring half of the batch."""
    n = len(x)
    padded = torch.nn.functional.pad(x, (0, 0, 4, 4, 4, 4))
    windows = padded.unfold(1, 32, 1).unfold(2, 32, 1)  # (n, 9, 9, channels, 32, 32)
    picked = windows[torch.arange(n), torch.randint(0, 9, (n,)), torch.randint(0, 9, (n,))]
    mirrored = torch.rand(n) < 0.5
    picked[mirrored] = picked[mirrored].flip(-1)
    return picked.permute(0, 2, 3, 1)


def _work(case: dict[str, Any], workers: int, *, batched: bool, by_window: bool = False) -> Pass:
    import torch
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(1 if workers else int(os.environ["GRADRING_BENCH_THREADS"]))
    work, batch = case["work"], case["batch"]
    if work == "process":
        return _process(case, workers, batched=batched)
    if work == "first":
        return _first(case, workers, batched=batched)
    crop_and_flip = crop_and_flip_by_window if by_window else crop_and_flip_by_index
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


def _process(case: dict[str, Any], workers: int, *, batched: bool) -> Pass:
    from torch.utils.data import DataLoader

    if not workers:
        raise ValueError("needs worker processes")
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


def _first(case: dict[str, Any], workers: int, *, batched: bool) -> Pass:
    from torch.utils.data import DataLoader

    if not workers or batched:
        raise ValueError("needs worker processes, sample by sample")
    batch = case["batch"]
    heavy: Any = Ready(1, batch, ballast())
    start = case.get("start", "spawn")

    def make() -> Any:
        return DataLoader(
            heavy, batch, sampler=range(1_000_000 * batch), num_workers=workers, multiprocessing_context=start
        )

    return Pass(make, 1, fresh=True)


def samples_0(case: dict[str, Any]) -> Pass:
    """No workers, sample by sample."""
    return _work(case, 0, batched=False)


def samples_1(case: dict[str, Any]) -> Pass:
    """One worker, sample by sample."""
    return _work(case, 1, batched=False)


def samples_2(case: dict[str, Any]) -> Pass:
    """Two workers, sample by sample."""
    return _work(case, 2, batched=False)


def forked_2(case: dict[str, Any]) -> Pass:
    """Two workers, forked, sample by sample."""
    return _work({**case, "start": "fork"}, 2, batched=False)


def batches_0(case: dict[str, Any]) -> Pass:
    """No workers, ``__getitems__``."""
    return _work(case, 0, batched=True)


def batches_0_alone(case: dict[str, Any]) -> Pass:
    """The same, with one thread for PyTorch's own kernels."""
    os.environ["GRADRING_BENCH_THREADS"] = "1"
    return _work(case, 0, batched=True)


def batches_1(case: dict[str, Any]) -> Pass:
    """One worker, ``__getitems__``."""
    return _work(case, 1, batched=True)


def batches_2(case: dict[str, Any]) -> Pass:
    """Two workers, ``__getitems__``."""
    return _work(case, 2, batched=True)


def windows_0(case: dict[str, Any]) -> Pass:
    """No workers, ``__getitems__``, crops as windows of a strided view."""
    if case["work"] != "augment":
        raise ValueError("only crops")
    return _work(case, 0, batched=True, by_window=True)


def windows_0_alone(case: dict[str, Any]) -> Pass:
    """The same, with one thread for PyTorch's own kernels."""
    os.environ["GRADRING_BENCH_THREADS"] = "1"
    return windows_0(case)


def windows_2(case: dict[str, Any]) -> Pass:
    """The same with two workers."""
    if case["work"] != "augment":
        raise ValueError("only crops")
    return _work(case, 2, batched=True, by_window=True)
