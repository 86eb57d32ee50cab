"""Print what threads of one process do together: the calls per second of several threads over those of one.

An eager operation releases the GIL, so two threads should make nearly twice as many calls as one. Predictions run at the same
time, so four threads should make at least as many as one; how many more depends on the processor's cores. Turns of one thread
and of several alternate, and the ratio is the median over the turns, so that a slower stretch of the machine falls on both.

Run it on an idle machine: ``python scripts/measure_threads.py [--turns 9] [--seconds 0.3]``.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np

import gradring as gr

Call = Callable[[], object]


def calls_per_second(make: Callable[[], Call], threads: int, seconds: float) -> float:
    """Calls of ``threads`` threads in ``seconds``; each thread calls what ``make`` gives it, on arrays of its own."""
    counts = [0] * threads
    calls = [make() for _ in range(threads)]
    for call in calls:
        call()
    began: list[float] = []
    ready = threading.Barrier(threads, action=lambda: began.append(time.perf_counter()))

    def work(number: int) -> None:
        call, count = calls[number], 0
        ready.wait()
        while time.perf_counter() < began[0] + seconds:
            call()
            count += 1
        counts[number] = count

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - began[0])


def ratio(make: Callable[[], Call], threads: int, turns: int, seconds: float) -> tuple[float, float]:
    """The calls per second of one thread, and the median ratio of several to one."""
    alone, ratios = [], []
    for _ in range(turns):
        alone.append(calls_per_second(make, 1, seconds))
        ratios.append(calls_per_second(make, threads, seconds) / alone[-1])
    return statistics.median(alone), statistics.median(ratios)


def eager(rows: int) -> Callable[[], Call]:
    """gelu of (rows, 256) into a given array."""

    def make() -> Call:
        x = np.random.default_rng(0).standard_normal((rows, 256), dtype=np.float32)
        out = np.empty_like(x)
        return lambda: gr.ops.gelu(x, out=out)

    return make


def product(size: int) -> Callable[[], Call]:
    """A square matrix product into a given array."""

    def make() -> Call:
        a, b = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
        out = np.empty_like(a)
        return lambda: gr.ops.matmul(a, b, out=out)

    return make


def predictions(rows: int) -> Callable[[], Call]:
    """Predictions of (rows, 784) by one trainer, which all threads share."""
    layers = (gr.nn.Linear(784, 256), gr.nn.ReLU(), gr.nn.Linear(256, 10))
    trainer = gr.Trainer(gr.nn.Sequential(*layers), threads=1)

    def make() -> Call:
        x = np.random.default_rng(0).standard_normal((rows, 784), dtype=np.float32)
        return lambda: trainer.predict(x)

    return make


def python_alone() -> Call:
    """A call of a few microseconds that only Python runs. Its threads share Python's lock, so this is about the most that
    four threads of short calls can make."""
    return lambda: sum(range(900))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3)
    given = parser.parse_args()
    gr.set_num_threads(1)  # one lane for each call
    cases = {
        "gelu of (64, 256)": (eager(64), 2),
        "gelu of (4096, 256)": (eager(4096), 2),
        "matmul of (128, 128)": (product(128), 2),
        "matmul of (512, 512)": (product(512), 2),
        "Python alone": (python_alone, 4),
        "predict of 1 row": (predictions(1), 4),
        "predict of 64 rows": (predictions(64), 4),
        "predict of 1024 rows": (predictions(1024), 4),
    }
    for name, (make, threads) in cases.items():
        alone, times = ratio(make, threads, given.turns, given.seconds)
        print(f"{name:24} {alone:10.0f} calls per second alone, {threads} threads make {times:.2f} times as many")


if __name__ == "__main__":
    main()
