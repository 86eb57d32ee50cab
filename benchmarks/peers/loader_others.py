"""Loading work by SPDL, Grain and tf.data, where they are installed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.bench.loader_contenders import Epochs, file_pass
from gradring.bench.loader_data import Ready, ballast, batches_of, images, prepare, rows_file
from gradring.bench.loader_pass import Pass

Array = NDArray[Any]


def _rows(case: dict[str, Any]) -> Array:
    if case["work"] not in ("scale", "rows", "warm", "cold"):
        raise ValueError("not written for this work")
    array: Array = np.load(rows_file(), mmap_mode="r") if case["work"] in ("warm", "cold") else images(case["work"])
    return array


def spdl(case: dict[str, Any], *, ahead: int = 3) -> Pass:
    """SPDL: a pipeline of two threads over index arrays, or its segment pool between processes, `ahead` batches ahead."""
    from spdl.pipeline import PipelineBuilder

    if case["work"] == "process":
        return _spdl_process(case, ahead)
    if case["work"] == "first":
        return _spdl_first(case)
    batch, random = case["batch"], np.random.default_rng(0)

    prepare(case)

    def make() -> Any:
        data = _rows(case)

        def indices() -> Iterator[Array]:
            order = random.permutation(len(data))
            for first in range(0, len(data), batch):
                yield order[first : first + batch]

        def load(picked: Array) -> Array:
            x: Array = data[picked]
            return x.astype(np.float32) / np.float32(255) if case["work"] == "scale" else x

        def epoch() -> Iterator[Array]:
            builder = PipelineBuilder().add_source(indices()).pipe(load, concurrency=2).add_sink(ahead)
            pipeline = builder.build(num_threads=2)
            with pipeline.auto_stop():
                yield from pipeline

        return Epochs(epoch)

    return file_pass(case, make)


class _Endless:
    """A source that yields the same batch over and over, in SPDL's subprocess."""

    def __init__(self, mebibytes: int, batch: int, ballast: Any = None) -> None:
        self.batch, self.ballast = np.arange((mebibytes << 20) // 4, dtype=np.float32).reshape(batch, -1), ballast

    def __iter__(self) -> Iterator[Array]:
        while True:
            yield self.batch


def _spdl_process(case: dict[str, Any], ahead: int) -> Pass:
    from spdl.pipeline import SharedMemorySegmentPool, iterate_in_subprocess

    mebibytes = case["mebibytes"]
    # Room for the batches on their way, the one held and the one being written.
    pool = SharedMemorySegmentPool((mebibytes << 20) + (1 << 16), ahead + 3)
    fn = functools.partial(_Endless, mebibytes, case["batch"])
    iterable = iterate_in_subprocess(fn, buffer_size=ahead, arena=pool)
    return Pass(lambda: iterable, batches_of(case), endless=True)


def _spdl_first(case: dict[str, Any]) -> Pass:
    import multiprocessing

    from spdl.pipeline import SharedMemorySegmentPool, iterate_in_subprocess

    multiprocessing.set_start_method("spawn", force=True)  # also decides the kind of the pool's condition variable
    heavy = ballast()

    def make() -> Any:
        pool = SharedMemorySegmentPool((1 << 20) + (1 << 16), 6)
        fn = functools.partial(_Endless, 1, case["batch"], heavy)
        return iterate_in_subprocess(fn, buffer_size=3, arena=pool, mp_context="spawn")

    return Pass(make, 1, fresh=True)


def _scaled(x: Array) -> Array:
    return x.astype(np.float32) / np.float32(255)


def grain(case: dict[str, Any]) -> Pass:
    """Grain: its global shuffle, batches by np.stack, prefetched by threads, or by two worker processes."""
    import grain as g

    batch = case["batch"]
    if case["work"] == "process":
        from absl import flags

        flags.FLAGS([__name__])  # Grain's workers read these flags
        source: Any = _Counted(Ready(case["mebibytes"], batch), 1_000_000 * batch)
        ready = g.MapDataset.source(source).batch(batch).to_iter_dataset(g.ReadOptions(num_threads=0))
        both = ready.mp_prefetch(g.MultiprocessingOptions(num_workers=2, per_worker_buffer_size=2))
        return Pass(lambda: both, batches_of(case), endless=True)

    prepare(case)

    def make() -> Any:
        dataset = g.MapDataset.source(_rows(case)).seed(0).shuffle().batch(batch)
        if case["work"] == "scale":
            dataset = dataset.map(_scaled)
        return dataset.to_iter_dataset(g.ReadOptions(num_threads=2, prefetch_buffer_size=8))

    return file_pass(case, make)


class _Counted:
    """A source with the methods that Grain's shuffle and its workers need."""

    def __init__(self, source: Ready, length: int) -> None:
        self._source, self._length = source, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: Any) -> Array:
        return self._source(int(i))


def tf_data(case: dict[str, Any]) -> Pass:
    """tf.data, autotuned: shuffled through a buffer of the whole set, scaled by batches."""
    import tensorflow as tf

    if case["work"] != "scale":  # tf.data keeps two copies of the data
        raise ValueError("not written for this work")
    data, batch = images(case["work"]), case["batch"]

    def make() -> Any:
        dataset = tf.data.Dataset.from_tensor_slices(data).shuffle(len(data)).batch(batch)
        if case["work"] == "scale":
            dataset = dataset.map(lambda x: tf.cast(x, tf.float32) / 255.0, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.prefetch(tf.data.AUTOTUNE)

    return file_pass(case, make)
