"""Loading work: gr.Loader, NumPy slicing, and upper bounds for the speed of any loader.

Each function takes a case and returns a :class:`gradring.bench.loader_pass.Pass`. A case carries ``work``, which names
the data and what is done to it, and ``batch``. A contender raises ValueError for a case that it cannot do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .loader_data import MEAN, STD, Ready, ballast, batches_of, drop_cache, images, prepare, rows_file
from .loader_pass import Pass, touch

Array = NDArray[Any]


class Epochs:
    """An iterable that calls a function for a new iterator in each epoch."""

    def __init__(self, function: Callable[[], Iterator[Any]]) -> None:
        self._function = function

    def __iter__(self) -> Iterator[Any]:
        return self._function()


def file_pass(case: dict[str, Any], make: Callable[[], Iterable[Any]]) -> Pass:
    """A pass over the file: each pass opens everything again and, if the case is cold, begins with an empty page
    cache."""
    if case["work"] != "cold":
        return Pass(make, batches_of(case))
    return Pass(make, batches_of(case), fresh=True, before=drop_cache)


def ours(case: dict[str, Any], *, threads: int | Literal["auto"] = "auto") -> Pass:
    """gr.Loader with this many threads or worker processes; 0 fills batches in the consumer's thread."""
    import gradring as gr

    work, batch = case["work"], case["batch"]
    if work in ("process", "first"):
        heavy = Ready(case.get("mebibytes", 1), batch, ballast() if work == "first" else None)
        source = gr.sources.Callable(heavy, 1_000_000 * batch, workers="processes", num_workers=2)
        if work == "process":
            return Pass(lambda: gr.Loader(source, batch, num_threads=threads), batches_of(case), endless=True)
        return Pass(lambda: gr.Loader(source, batch, num_threads=threads), 1, fresh=True)
    transforms: Any = {
        "scale": [gr.transforms.Cast("float32"), gr.transforms.Scale(1 / 255, 0)],
        "augment": [
            gr.transforms.RandomCrop(32, 4),
            gr.transforms.RandomFlip(),
            gr.transforms.Normalize(MEAN * 255, STD * 255),
        ],
    }.get(work)

    prepare(case)

    def make() -> Any:
        data: Any = rows_file() if work in ("warm", "cold") else images(work)
        return gr.Loader(data, batch, shuffle=True, transforms=transforms, num_threads=threads)

    return file_pass(case, make)


def numpy_slicing(case: dict[str, Any]) -> Pass:
    """The loop that users write by hand: ``X[idx]``."""
    work, batch = case["work"], case["batch"]
    if work in ("process", "first", "augment"):
        raise ValueError("not what it does")
    random = np.random.default_rng(0)

    prepare(case)

    def make() -> Any:
        data = np.load(rows_file(), mmap_mode="r") if work in ("warm", "cold") else images(work)

        def epoch() -> Iterator[Array]:
            order = random.permutation(len(data))
            for first in range(0, len(data), batch):
                x = data[order[first : first + batch]]
                yield x.astype(np.float32) / np.float32(255) if work == "scale" else x

        return Epochs(epoch)

    return file_pass(case, make)


def gather(case: dict[str, Any], *, threads: int, rows: str = "shuffled") -> Pass:
    """The ceilings: each row copied once into one warm buffer, by np.take from memory, by pread from the file.

    If the rows are "in_order", it copies the same bytes as one run of memory per batch (memcpy).
    """
    work, batch = case["work"], case["batch"]
    if work not in ("scale", "rows", "warm", "cold"):
        raise ValueError("no ceiling is defined")
    batches, random, pool = batches_of(case), np.random.default_rng(0), ThreadPoolExecutor(threads)
    if work in ("warm", "cold"):
        shape = np.load(rows_file(), mmap_mode="r").shape
        fd, head, data = os.open(rows_file(), os.O_RDONLY), 128, None
    else:
        data = images(work)
        shape = data.shape
    row = int(np.prod(shape[1:]))
    buffers = [np.empty((-(-batch // threads), *shape[1:]), np.uint8) for _ in range(threads)]

    def copy(buffer: Array, picked: Array) -> None:
        if data is None:
            for view, i in zip(buffer, picked.tolist(), strict=False):
                os.preadv(fd, [memoryview(view).cast("B")], head + i * row)
        elif rows == "in_order":
            first = int(picked[0]) % (len(data) - len(picked))
            np.copyto(buffer[: len(picked)], data[first : first + len(picked)])
        else:
            np.take(data, picked, axis=0, out=buffer[: len(picked)], mode="clip")

    def part(number: int, order: Array) -> None:
        buffer = buffers[number]
        for k in range(batches):
            picked = order[k * batch : (k + 1) * batch][number::threads]
            copy(buffer, picked)
            touch(buffer[: len(picked)])

    def epoch() -> Iterator[Array]:
        order = random.permutation(shape[0])
        list(pool.map(lambda number: part(number, order), range(threads)))
        yield np.empty(0, np.uint8)

    return Pass(lambda: Epochs(epoch), 1, before=drop_cache if work == "cold" else None, fresh=work == "cold")
