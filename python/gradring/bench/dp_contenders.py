"""Data-parallel training steps: gradring's, and what contenders with several processes share.

A case is {"sizes": [784, 128, 10], "batch": 128, "ranks": 2, "min_seconds": 0.2}; the batch is that of all ranks together.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .contender import Work
from .harness import AGREE_CALLS
from .step_contenders import data, threads, weights

__all__ = [
    "LEARNING_RATE",
    "Lines",
    "Processes",
    "custom_trainer",
    "our_ranks",
    "ours",
    "resident",
    "serve",
    "spawned",
    "trainer_of",
]

LEARNING_RATE = 1e-3  # of AdamW; all other numbers are PyTorch's defaults
_START_SECONDS = 90.0


def ours(case: dict[str, Any], replicas: int) -> Work:
    """gradring: ``trainer.step(x, y)`` from Python, on as many replicas of as many threads in all."""
    if case.get("custom") and replicas > 1:
        raise NotImplementedError("replicas of a function in Python: they would share Python's lock")
    made = custom_trainer(case) if case.get("custom") else trainer_of(case, replicas=replicas, threads=threads())
    step = made.step
    x, y = data(case)
    return lambda: step(x, y)


def trainer_of(case: dict[str, Any], **options: Any) -> Any:
    """A gr.Trainer of the network, with the weights of all contenders."""
    import gradring as gr

    layers: list[Any] = []
    for i, o in pairwise(case["sizes"]):
        layers += [gr.nn.Linear(i, o), gr.nn.ReLU()]
    model = gr.nn.Sequential(*layers[:-1]).init(0)
    for index, (w, b) in enumerate(weights(case)):
        model.params[f"{2 * index}.weight"] = w
        model.params[f"{2 * index}.bias"] = b
    return gr.Trainer(model, optimizer=gr.optim.AdamW(LEARNING_RATE, weight_decay=0.01), **options)


def custom_trainer(case: dict[str, Any], **options: Any) -> Any:
    """A gr.Trainer whose gradients a function in NumPy computes. Its arrays are so small that it holds Python's lock nearly all
    the time."""
    import gradring as gr

    rng = np.random.default_rng(0)
    inputs, classes = case["sizes"]

    def step(params: Any, batch: Any) -> Any:
        x, y = batch
        total, gradient = 0.0, np.zeros((inputs, classes), np.float32)
        for at in range(0, len(x), 2):
            xs, ys = x[at : at + 2], y[at : at + 2]
            logits = xs @ params["w"]
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            rows = np.arange(len(ys))
            total -= float(np.log(p[rows, ys]).sum())
            p[rows, ys] -= 1
            gradient += xs.T @ p
        return total / len(x), {"w": gradient / np.float32(len(x))}, len(x)

    params = {"w": rng.standard_normal((inputs, classes), np.float32) / np.float32(inputs**0.5)}
    return gr.Trainer(step=step, params=params, optimizer=gr.optim.AdamW(LEARNING_RATE, weight_decay=0.01), **options)


def our_ranks(case: dict[str, Any]) -> Processes:
    """gradring: ``trainer.step(x, y)`` in processes that ``gradring run`` has started, each with one thread."""
    folder = tempfile.mkdtemp(prefix="gradring-bench-", dir="/tmp")  # a socket's path must be short
    ranks = case["ranks"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/turns")
        listener.listen(ranks)
        listener.settimeout(_START_SECONDS)
        command = [sys.executable, "-m", "gradring", "run", "-n", str(ranks), "-m", "gradring.bench.dp_rank", folder]
        launcher = subprocess.Popen([*command, json.dumps(case)], stdin=subprocess.DEVNULL)
        try:
            pipes = [Lines(listener.accept()[0]) for _ in range(ranks)]
        except TimeoutError:
            launcher.terminate()
            raise RuntimeError(f"the ranks of gradring have not started within {_START_SECONDS:.0f} s") from None
        finally:
            shutil.rmtree(folder)
    return Processes(pipes, [launcher.wait], case)


def spawned(target: Callable[..., None], case: dict[str, Any], *arguments: Any) -> Processes:
    """Ranks that are fresh processes of Python: each calls ``target(rank, case, pipe, *arguments)``."""
    spawn = multiprocessing.get_context("spawn")
    pipes, ends = [], []
    for rank in range(case["ranks"]):
        here, there = spawn.Pipe()
        process = spawn.Process(target=target, args=(rank, case, there, *arguments), daemon=True)
        process.start()
        there.close()
        pipes.append(here)
        ends.append(process.join)
    return Processes(pipes, ends, case)


class Lines:
    """A socket as a pipe of JSON, a line for each message."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rw")
        connection.close()

    def send(self, message: Any) -> None:
        self._file.write(json.dumps(message) + "\n")
        self._file.flush()

    def recv(self) -> Any:
        line = self._file.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    def close(self) -> None:
        self._file.close()


class Processes:
    """A contender whose ranks are processes. Each runs ``serve``, and times its own steps; the slowest one's time counts."""

    def __init__(self, pipes: Sequence[Any], ends: Sequence[Callable[..., Any]], case: dict[str, Any]) -> None:
        # Each of ``ends`` waits for the end of a process, at most for a number of seconds.
        self._pipes, self._ends = pipes, ends
        losses = self.ask("first", AGREE_CALLS)
        self.facts = {"first": [statistics.fmean(of_all) for of_all in zip(*losses, strict=True)]}
        self._calls = max(self.ask("calibrate", case["min_seconds"]))

    def ask(self, what: str, number: float) -> list[Any]:
        """The replies of all ranks to a request that ``serve`` knows."""
        for pipe in self._pipes:
            pipe.send((what, number))
        replies = [pipe.recv() for pipe in self._pipes]
        for reply in replies:
            if isinstance(reply, str):
                raise RuntimeError(reply)
        return replies

    def measure(self) -> dict[str, float]:
        """Seconds per step of the slowest rank, and the processor time of all ranks per step."""
        times = self.ask("time", self._calls)
        return {
            "seconds": max(wall for wall, _ in times) / self._calls,
            "cpu_seconds": sum(cpu for _, cpu in times) / self._calls,
        }

    def close(self) -> None:
        """End the ranks, by ending their pipes."""
        for pipe in self._pipes:
            pipe.close()
        for end in self._ends:
            end(30.0)
        self._pipes, self._ends = (), ()

    def __del__(self) -> None:
        self.close()


def resident() -> int:
    """The bytes of memory of this process without those of files, such as libraries. What processes share is divided among
    them."""
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) * 1024


def serve(step: Work, pipe: Any, **more: Callable[[int], Any]) -> None:
    """Answer the requests of ``Processes`` in a rank until the pipe ends; all ranks get the same. ``step`` returns its loss.
    ``more`` are functions that answer further requests by name."""
    while True:
        try:
            what, number = pipe.recv()
        except EOFError:
            return
        try:
            if what in more:
                pipe.send(more[what](number))
            elif what == "first":
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
