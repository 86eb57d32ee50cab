"""A thread makes batches, and another one consumes them.

Usual: ``threading.Thread`` and ``queue.Queue``; gathering rows in NumPy holds Python's lock for a part of the time.
gradring: native threads gather ahead into a ring of slots.

python examples/gallery/07_threaded_producer.py [full]
"""

import queue
import threading

import numpy as np
from compare import difference, report, size, timed

import gradring as gr

SAMPLES, BATCH = size(8_192, 131_072), 128


def consume(batch: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    x, y = batch
    return np.array([x.sum(dtype=np.float64), y.sum()])


def main() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (SAMPLES, 256), np.uint8), rng.integers(0, 10, SAMPLES)
    with gr.Loader((x, y), BATCH, shuffle=True, seed=1, transforms={0: gr.transforms.Scale(1 / 255)}) as loader:
        # The usual way gets the same order, so that the batches can be compared.
        with gr.Loader((np.arange(SAMPLES),), BATCH, shuffle=True, seed=1) as numbers:
            order = np.concatenate([ids for (ids,) in numbers])

        def made(at: int) -> tuple[np.ndarray, np.ndarray]:
            rows = order[at : at + BATCH]
            return x[rows].astype(np.float32) * np.float32(1 / 255), y[rows]

        def usual() -> list[np.ndarray]:
            batches: queue.Queue[tuple[np.ndarray, np.ndarray] | None] = queue.Queue(maxsize=4)

            def produce() -> None:
                for at in range(0, SAMPLES, BATCH):
                    batches.put(made(at))
                batches.put(None)

            thread = threading.Thread(target=produce)
            thread.start()
            results = [consume(batch) for batch in iter(batches.get, None)]
            thread.join()
            return results

        usual_seconds, expected = timed(usual)

        def ours() -> list[np.ndarray]:
            loader.set_epoch(0)
            return [consume(batch) for batch in loader]

        for at, batch in zip(range(0, SAMPLES, BATCH), loader, strict=True):
            assert all(np.array_equal(one, other) for one, other in zip(made(at), batch, strict=True))
        seconds, results = timed(ours)
    report("Thread and Queue", usual_seconds, seconds, difference(expected, results), 0.0)


if __name__ == "__main__":
    main()
