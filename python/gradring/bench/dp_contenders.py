"""Data-parallel training steps: gradring's, and what contenders with several processes share.

A case is {"sizes": [784, 128, 10], "batch": 128, "ranks": 2, "min_seconds": 0.2}; the batch is that of all ranks together.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from .contender import Work
from .harness import AGREE_CALLS
from .step_contenders import data, threads, weights

__all__ = ["LEARNING_RATE", "Processes", "ours", "serve"]

LEARNING_RATE = 1e-3  # of AdamW; all other numbers are PyTorch's defaults


def ours(case: dict[str, Any], replicas: int) -> Work:
    """gradring: ``trainer.step(x, y)`` from Python, on as many replicas of as many threads in all."""
    import gradring as gr

    layers: list[Any] = []
    for i, o in pairwise(case["sizes"]):
        layers += [gr.nn.Linear(i, o), gr.nn.ReLU()]
    model = gr.nn.Sequential(*layers[:-1]).init(0)
    optimizer = gr.optim.AdamW(LEARNING_RATE, weight_decay=0.01)
    trainer = gr.Trainer(model, optimizer=optimizer, replicas=replicas, threads=threads())
    for index, (w, b) in enumerate(weights(case)):
        trainer.params[f"{2 * index}.weight"][...] = w
        trainer.params[f"{2 * index}.bias"][...] = b
    x, y = data(case)
    step = trainer.step
    return lambda: step(x, y)


class Processes:
    """A contender whose ranks are processes. Each runs ``serve``, and times its own steps; the slowest one's time counts."""

    def __init__(self, target: Callable[..., None], case: dict[str, Any], *arguments: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for rank in range(case["ranks"]):
            here, there = spawn.Pipe()
            process = spawn.Process(target=target, args=(rank, case, there, *arguments), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        losses = self._ask("first", AGREE_CALLS)
        self.facts = {"first": [statistics.fmean(of_all) for of_all in zip(*losses, strict=True)]}
        self._calls = max(self._ask("calibrate", case["min_seconds"]))

    def _ask(self, what: str, number: float) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((what, number))
        replies = [pipe.recv() for pipe in self._pipes]
        for reply in replies:
            if isinstance(reply, str):
                raise RuntimeError(reply)
        return replies

    def measure(self) -> dict[str, float]:
        """Seconds per step of the slowest rank, and the processor time of all ranks per step."""
        times = self._ask("time", self._calls)
        return {
            "seconds": max(wall for wall, _ in times) / self._calls,
            "cpu_seconds": sum(cpu for _, cpu in times) / self._calls,
        }

    def __del__(self) -> None:
        for process in getattr(self, "_processes", ()):
            process.terminate()


def serve(step: Work, pipe: Any) -> None:
    """Answer the requests of ``Processes`` in a rank until the pipe ends; all ranks get the same. ``step`` returns its loss."""
    while True:
        try:
            what, number = pipe.recv()
        except EOFError:
            return
        try:
            if what == "first":
                pipe.send([step() for _ in range(number)])
            elif what == "calibrate":
                # A fixed number, because all ranks must take as many steps as each other.
                begin = time.perf_counter()
                for _ in range(10):
                    step()
                pipe.send(max(1, round(10 * number / max(time.perf_counter() - begin, 1e-9))))
            else:
                for _ in range(max(1, number // 4)):
                    step()
                begin, used = time.perf_counter(), time.process_time()
                for _ in range(number):
                    step()
                pipe.send((time.perf_counter() - begin, time.process_time() - used))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
