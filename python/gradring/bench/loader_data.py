"""The data of the loader's benchmark, and how much of it a pass reads."""

from __future__ import annotations

import atexit
import ctypes
import functools
import mmap
import os
import shutil
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MEAN, STD = np.array([0.49, 0.48, 0.45], np.float32), np.array([0.25, 0.24, 0.26], np.float32)
_SHAPES = {
    "scale": (60000, 784),
    "rows": (4000, 3, 224, 224),
    "augment": (20000, 32, 32, 3),
}


@functools.lru_cache(maxsize=1)
def images(work: str) -> Array:
    """The array of a case."""
    # Write different bytes to each page, so that no two pages are equal or unwritten.
    block = np.random.default_rng(0).integers(0, 256, 1 << 20, dtype=np.uint8)
    return np.resize(block, _SHAPES[work])


@functools.lru_cache(maxsize=1)
def rows_file() -> str:
    """An .npy file of the rows of 3x224x224, shared by all contenders and written once."""
    path = os.environ.get("GRADRING_BENCH_FILE")
    if path is None or not os.path.exists(path):
        folder = tempfile.mkdtemp(prefix="gradring-bench-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = path or os.path.join(folder, "rows.npy")
        write_rows(path)
    return path


def write_rows(path: str) -> None:
    """Writes the file of images, and waits until it is on the disk."""
    np.save(path, images("rows"))
    images.cache_clear()
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def prepare(case: dict[str, Any]) -> None:
    """Makes the case's data, so that no timing sees it."""
    if case["work"] in _SHAPES:
        images(case["work"])
    elif case["work"] in ("warm", "cold"):
        rows_file()


def drop_cache() -> None:
    """Takes the file out of the page cache. RuntimeError if a process that maps it keeps a twentieth of it there."""
    fd = os.open(rows_file(), os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        left = _resident(fd)
    finally:
        os.close(fd)
    if left > 0.05:
        raise RuntimeError(f"[bench] the file is not cold: {left:.0%} of it are still in memory")


def _resident(fd: int) -> float:
    """The part of a file that is in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size = os.fstat(fd).st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    address = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    try:
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return float(np.mean(np.array(pages, np.uint8) & 1))


def batches_of(case: dict[str, Any]) -> int:
    """How many batches a pass reads."""
    work, batch = case["work"], int(case["batch"])
    if work == "process":
        return max(16, 256 // int(case["mebibytes"]))
    rows = {"scale": 60000, "rows": 1920, "warm": 1920, "cold": 960, "augment": 12800}[work]
    return -(-rows // batch)


class Ready:
    """Sample i of a batch of `mebibytes`. Its memory exists already, because only the hand-over to the consumer is
    measured."""

    def __init__(self, mebibytes: int, batch: int, ballast: Any = None) -> None:
        self.samples = np.arange((mebibytes << 20) // 4, dtype=np.float32).reshape(batch, -1)
        self.ballast = ballast

    def __call__(self, i: int) -> Array:
        sample: Array = self.samples[i % len(self.samples)]
        return sample

    def __len__(self) -> int:
        return 1 << 30

    __getitem__ = __call__


class ReadyBatches(Ready):
    """The same data set with ``__getitems__``, so that DataLoader asks for whole batches."""

    def __getitems__(self, indices: list[int]) -> Any:
        import torch

        return torch.from_numpy(self.samples)


def as_it_is(batch: Any) -> Any:
    """A collate function that does nothing."""
    return batch


def ballast() -> list[str]:
    """About 64 MB of Python objects."""
    return [f"path/to/some/file-{i:012d}.png" for i in range(700_000)]
