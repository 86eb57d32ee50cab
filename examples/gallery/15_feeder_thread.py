"""A feeder of one's own: a thread fills a bounded queue, and stops cleanly when the consumer stops early.

Usual: a thread, a bounded ``queue.Queue``, an ``Event`` that the feeder looks at, and a queue that the consumer
empties so that the feeder is not stuck in ``put``. gradring: a loader over the function; leaving it ends its threads,
wherever they are.

python examples/gallery/15_feeder_thread.py [full]
"""

import os
import queue
import threading
import time

import numpy as np
from compare import difference, report, size, timed

import gradring as gr

BATCHES, TAKEN, ROWS = 1_000, size(100, 800), 64


def rows(i: int) -> np.ndarray:
    return np.arange(i, i + 32, dtype=np.float32) ** 2


def threads() -> set[str]:
    """The threads of this process, native ones included."""
    return set(os.listdir("/proc/self/task"))


class Feeder:
    """A bounded queue of batches, and the thread that fills it."""

    def __init__(self) -> None:
        self.batches: queue.Queue[np.ndarray] = queue.Queue(maxsize=8)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.feed)
        self.thread.start()

    def feed(self) -> None:
        for number in range(BATCHES):
            batch = np.stack([rows(number * ROWS + row) for row in range(ROWS)])
            while not self.stopped.is_set():
                try:
                    self.batches.put(batch, timeout=0.05)
                    break
                except queue.Full:
                    continue
            if self.stopped.is_set():
                return

    def stop(self) -> None:
        self.stopped.set()
        while not self.batches.empty():
            self.batches.get_nowait()
        self.thread.join()


def main() -> None:
    def usual() -> list[np.ndarray]:
        feeder = Feeder()
        try:
            return [feeder.batches.get() for _ in range(TAKEN)]
        finally:
            feeder.stop()

    def ours() -> list[np.ndarray]:
        with gr.Loader(gr.sources.Callable(rows, BATCHES * ROWS), batch_size=ROWS) as loader:
            return [np.array(batch) for batch, _ in zip(loader, range(TAKEN), strict=False)]

    usual_seconds, expected = timed(usual)
    ours()
    before = threads()
    seconds, batches = timed(ours)
    deadline = time.monotonic() + 10  # the kernel may list a thread for a moment after it has ended
    while not threads() <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() <= before, "a thread was left behind"
    report("a Thread, a Queue and an Event", usual_seconds, seconds, difference(expected, batches), 0.0)


if __name__ == "__main__":
    main()
