"""A model whose layers live in different processes: the first sends its outputs on, the second sends gradients back.

Usual: two processes and a ``Pipe``, which pickles every array. gradring: two ranks with ``comm.send`` and
``comm.recv``, from memory to memory.

A later version: a pipeline as a pass, which cuts one model into stages and keeps all of them busy with micro-batches.
In this version the stages are written by hand, as below.

python examples/gallery/06_layers_in_processes.py [full]
"""

import multiprocessing
import time
from typing import Any

import numpy as np
from compare import difference, report, size

import gradring as gr

STEPS, ROWS, WIDTH = size(50, 500), size(64, 256), size(64, 512)
RATE = np.float32(0.01)


def weights(layer: int) -> np.ndarray:
    return np.random.default_rng(layer).standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5)


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.standard_normal((ROWS, WIDTH), np.float32), rng.standard_normal((ROWS, WIDTH), np.float32)


def usual_first(pipe: Any) -> tuple[float, np.ndarray]:
    w, (x, _) = weights(0), batch()
    begin = time.perf_counter()
    for _ in range(STEPS):
        hidden = np.tanh(x @ w)
        pipe.send(hidden)
        w -= RATE * (x.T @ (pipe.recv() * (1 - hidden * hidden)))
    return time.perf_counter() - begin, w


def usual_second(pipe: Any, result: Any) -> None:
    w, (_, target) = weights(1), batch()
    for _ in range(STEPS):
        hidden = pipe.recv()
        error = (hidden @ w - target) / ROWS
        pipe.send(error @ w.T)
        w -= RATE * (hidden.T @ error)
    result.send(w)


def ours() -> tuple[float, np.ndarray]:
    comm = gr.comm.init()
    x, target = batch()
    w, hidden, back = weights(comm.rank), np.empty((ROWS, WIDTH), np.float32), np.empty((ROWS, WIDTH), np.float32)
    begin = time.perf_counter()
    for _ in range(STEPS):
        if comm.rank == 0:
            gr.ops.linear(x, w, activation="tanh", out=hidden)
            comm.send(hidden, 1)
            comm.recv(back, 1)
            _, dw, _ = gr.ops.linear_vjp(back, x, w, hidden, activation="tanh")
        else:
            comm.recv(hidden, 0)
            error = (gr.ops.matmul(hidden, w) - target) / ROWS
            comm.send(gr.ops.matmul(error, w, trans_b=True), 0)
            dw = gr.ops.matmul(hidden, error, trans_a=True)
        w -= RATE * dw
    return time.perf_counter() - begin, w


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    (here, there), (result, answer) = spawn.Pipe(), spawn.Pipe()
    process = spawn.Process(target=usual_second, args=(there, answer))
    process.start()
    usual_seconds, first = usual_first(here)
    expected = [first, result.recv()]
    process.join()
    (seconds, one), (_, two) = gr.comm.spawn(ours, 2)
    report("Pipe between two processes", usual_seconds, seconds, difference(expected, [one, two]), 1e-4)


if __name__ == "__main__":
    main()
