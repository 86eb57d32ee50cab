"""A pipeline of stages with prefetching: read from a file, cast, normalize, batch.

Usual: generators, one for each stage, and a thread that runs ahead of the consumer. gradring: a loader over the file,
whose transforms are compiled to one native pass that writes into the batch.

python examples/gallery/14_prefetching_pipeline.py [full]
"""

import queue
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from compare import difference, report, size, timed

import gradring as gr

SAMPLES, BATCH = size(4_096, 65_536), 128


def read(path: Path) -> Iterator[np.ndarray]:
    rows = np.load(path, mmap_mode="r")
    for at in range(0, len(rows), BATCH):
        yield rows[at : at + BATCH]


def cast(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield batch.astype(np.float32)


def normalized(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield (batch - np.float32(127.5)) / np.float32(64)


def prefetched(batches: Iterator[np.ndarray], depth: int = 4) -> Iterator[np.ndarray]:
    ahead: queue.Queue[np.ndarray | None] = queue.Queue(depth)

    def fill() -> None:
        for batch in batches:
            ahead.put(batch)
        ahead.put(None)

    thread = threading.Thread(target=fill)
    thread.start()
    while (batch := ahead.get()) is not None:
        yield batch
    thread.join()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, np.random.default_rng(0).integers(0, 256, (SAMPLES, 28, 28), np.uint8))
        usual_seconds, expected = timed(lambda: [np.array(b) for b in prefetched(normalized(cast(read(path))))])
        with gr.Loader((path,), BATCH, transforms={0: gr.transforms.Normalize(127.5, 64)}, prefetch=4) as loader:
            next(iter(loader))
            seconds, batches = timed(lambda: [np.array(batch) for (batch,) in loader])
    report("generators and a thread", usual_seconds, seconds, difference(expected, batches), 0.0)


if __name__ == "__main__":
    main()
