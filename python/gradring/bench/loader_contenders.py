"""Loading work, per library. Each function takes a case and returns one unit of work: a pass over some batches.

Every consumer touches all bytes of every batch, in the same way. Cases carry ``work``, which names the data and what is
done to it, and ``batch``.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contender import Work

Array = NDArray[Any]
MEAN, STD = np.array([0.49, 0.48, 0.45], np.float32), np.array([0.25, 0.24, 0.26], np.float32)


def touch(array: Array) -> int:
    """Reads every byte."""
    flat = array.reshape(-1).view(np.uint8)
    whole = flat.size // 8 * 8
    return int(np.bitwise_or.reduce(flat[:whole].view(np.uint64)))


def touch_all(batches: Iterable[Any], most: int) -> None:
    """Reads every byte of at most that many batches."""
    for number, batch in enumerate(batches):
        for part in batch if isinstance(batch, (tuple, list)) else (batch,):
            touch(part if isinstance(part, np.ndarray) else part.numpy())
        if number + 1 == most:
            break


@functools.lru_cache(maxsize=1)
def images(work: str) -> Array:
    """The data of a case."""
    shape = {
        "scale": (60000, 784),
        "rows": (4000, 3, 224, 224),
        "map": (4000, 3, 224, 224),
        "augment": (20000, 32, 32, 3),
    }[work]
    # Pages that were written, each with bytes of its own.
    block = np.random.default_rng(0).integers(0, 256, 1 << 20, dtype=np.uint8)
    return np.resize(block, shape)


@functools.lru_cache(maxsize=1)
def mapped() -> str:
    """The same in a file, in the page cache."""
    path = os.path.join(tempfile.mkdtemp(prefix="gradring-bench-"), "rows.npy")
    np.save(path, images("map"))
    return path


def batches_of(case: dict[str, Any]) -> int:
    """How many batches a unit of work reads."""
    return {"scale": 60000, "rows": 1920, "map": 1920, "augment": 12800}[case["work"]] // int(case["batch"])


class Produce:
    """Sample i of `mebibytes` / `batch`, for worker processes: made by a fill, so that it is transport that counts."""

    def __init__(self, mebibytes: int, batch: int, ballast: Any = None) -> None:
        self.shape = ((mebibytes << 20) // batch // 4,)
        self.ballast = ballast

    def __call__(self, i: int) -> Array:
        return np.full(self.shape, i, np.float32)

    def __len__(self) -> int:
        return 1 << 30

    __getitem__ = __call__


def ballast() -> list[str]:
    """About 64 MB of Python objects."""
    return [f"path/to/some/file-{i:012d}.png" for i in range(700_000)]


def _ours(case: dict[str, Any], threads: int | str) -> Work:
    import gradring as gr

    work, batch = case["work"], case["batch"]
    if work == "process":
        source = gr.sources.Callable(Produce(case["mebibytes"], batch), 64 * batch, workers="processes", num_workers=2)
        loader = gr.Loader(source, batch)
        return lambda: touch_all(loader, 32)
    if work == "first":
        source = gr.sources.Callable(Produce(1, batch, ballast()), 100 * batch, workers="processes", num_workers=2)

        def first() -> None:
            with gr.Loader(source, batch) as fresh:
                touch_all(fresh, 1)

        return first
    transforms: Any = {
        "scale": [gr.transforms.Cast("float32"), gr.transforms.Scale(1 / 255, 0)],
        "augment": [
            gr.transforms.RandomCrop(32, 4),
            gr.transforms.RandomFlip(),
            gr.transforms.Normalize(MEAN * 255, STD * 255),
        ],
    }.get(work)
    data: Any = mapped() if work == "map" else images(work)
    loader = gr.Loader(data, batch, shuffle=True, transforms=transforms, num_threads=threads)
    return lambda: touch_all(loader, batches_of(case))


def ours(case: dict[str, Any]) -> Work:
    """gr.Loader, everything automatic."""
    return _ours(case, "auto")


def ours_without_threads(case: dict[str, Any]) -> Work:
    """gr.Loader, filling batches in the consumer's thread."""
    if case["work"] in ("process", "first"):
        raise ValueError("needs processes")
    return _ours(case, 0)


def numpy_slicing(case: dict[str, Any]) -> Work:
    """What one writes by hand: ``X[idx]``."""
    work, batch = case["work"], case["batch"]
    if work in ("process", "first", "augment"):
        raise ValueError("not what it does")
    data = np.load(mapped(), mmap_mode="r") if work == "map" else images(work)
    random = np.random.default_rng(0)

    def epoch() -> None:
        order = random.permutation(len(data))
        for number in range(batches_of(case)):
            x = data[order[number * batch : (number + 1) * batch]]
            touch(x.astype(np.float32) / np.float32(255) if work == "scale" else x)

    return epoch


def ceiling(case: dict[str, Any]) -> Work:
    """The measured floor of the memory traffic: each row copied once (np.take into one warm buffer, one thread; pread for
    the file), nothing converted but in the work that asks for float32, where the result is written once."""
    work, batch = case["work"], case["batch"]
    if work not in ("rows", "map"):
        raise ValueError("no ceiling is defined")
    data = images(work)
    random = np.random.default_rng(0)
    buffer = np.empty((batch, *data.shape[1:]), data.dtype)
    if work == "map":
        fd, head, row = os.open(mapped(), os.O_RDONLY), 128, data[0].nbytes
        views = [memoryview(part).cast("B") for part in buffer]

    def epoch() -> None:
        order = random.permutation(len(data))
        for number in range(batches_of(case)):
            picked = order[number * batch : (number + 1) * batch]
            if work == "map":
                for view, i in zip(views, picked.tolist(), strict=True):
                    os.preadv(fd, [view], head + i * row)
            else:
                np.take(data, picked, axis=0, out=buffer, mode="clip")
            touch(buffer)

    return epoch


def _torch(case: dict[str, Any], workers: int, *, batched: bool) -> Work:
    import torch
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(1 if workers else int(os.environ["GRADRING_BENCH_THREADS"]))
    work, batch = case["work"], case["batch"]
    if work in ("process", "first"):
        if not workers or batched:
            raise ValueError("needs worker processes, sample by sample")
        if work == "process":
            produce: Any = Produce(case["mebibytes"], batch)
            loader = DataLoader(produce, batch, sampler=range(64 * batch), num_workers=workers, persistent_workers=True)
            return lambda: touch_all(loader, 32)
        heavy: Any = Produce(1, batch, ballast())

        def first() -> None:
            fresh = DataLoader(
                heavy, batch, sampler=range(100 * batch), num_workers=workers, multiprocessing_context="spawn"
            )
            touch_all(fresh, 1)

        return first
    data = torch.from_numpy(np.load(mapped(), mmap_mode="c") if work == "map" else images(work))
    mean, std = torch.from_numpy(MEAN * 255), torch.from_numpy(STD * 255)

    def finish(x: Any) -> Any:
        if work == "scale":
            return x.to(torch.float32).div_(255)
        if work != "augment":
            return x
        # Batched crop and flip by index arithmetic, as one writes it for speed.
        n = len(x)
        padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (4, 4, 4, 4)).permute(0, 2, 3, 1)
        top, left = torch.randint(0, 9, (n, 1, 1)), torch.randint(0, 9, (n, 1, 1))
        rows, columns = torch.arange(32).view(1, 32, 1) + top, torch.arange(32).view(1, 1, 32) + left
        mirrored = torch.rand(n, 1, 1) < 0.5
        columns = torch.where(mirrored, left + 31 - torch.arange(32).view(1, 1, 32), columns)
        picked = padded[torch.arange(n).view(n, 1, 1), rows, columns]
        return picked.to(torch.float32).sub_(mean).div_(std)

    class Samples(Dataset[Any]):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, i: int) -> Any:
            return finish(data[i : i + 1])[0]

    class Batches(Samples):
        def __getitems__(self, indices: list[int]) -> Any:
            return finish(data[torch.as_tensor(indices)])

    loader = DataLoader(
        Batches() if batched else Samples(),
        batch,
        shuffle=True,
        num_workers=workers,
        collate_fn=(lambda x: x) if batched else None,
        persistent_workers=workers > 0,
    )
    return lambda: touch_all(loader, batches_of(case))


def torch_samples_0(case: dict[str, Any]) -> Work:
    """DataLoader, no workers, sample by sample."""
    return _torch(case, 0, batched=False)


def torch_samples_2(case: dict[str, Any]) -> Work:
    """DataLoader, two workers, sample by sample."""
    return _torch(case, 2, batched=False)


def torch_batches_0(case: dict[str, Any]) -> Work:
    """DataLoader, no workers, ``__getitems__``."""
    return _torch(case, 0, batched=True)


def torch_batches_2(case: dict[str, Any]) -> Work:
    """DataLoader, two workers, ``__getitems__``."""
    return _torch(case, 2, batched=True)
