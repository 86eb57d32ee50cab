"""Processes keep their gradients in shared memory, and one of them adds them up between two barriers.

Usual: ``multiprocessing.shared_memory`` and a ``Barrier``. gradring: ``comm.empty`` and ``comm.all_reduce``, which
works in the same memory without a copy, without a name in /dev/shm that could be left behind, and without waiting for
ever if a process dies.

python examples/gallery/03_shared_memory_gradients.py [full]
"""

import multiprocessing
import time
from multiprocessing import shared_memory
from typing import Any

import numpy as np
from compare import difference, report, size

import gradring as gr

ELEMENTS, ROUNDS = size(50_000, 1_000_000), 10


def numbers(rank: int, turn: int) -> np.ndarray:
    return np.random.default_rng([rank, turn]).standard_normal(ELEMENTS, np.float32)


def usual(rank: int, name: str, barrier: Any, results: Any) -> None:
    memory = shared_memory.SharedMemory(name)
    all_of_them = np.ndarray((3, ELEMENTS), np.float32, memory.buf)  # those of both, and the sum
    seconds = []
    for turn in range(ROUNDS):
        all_of_them[rank] = numbers(rank, turn)
        barrier.wait()
        begin = time.perf_counter()
        if rank == 0:
            np.add(all_of_them[0], all_of_them[1], out=all_of_them[2])
        barrier.wait()
        seconds.append(time.perf_counter() - begin)
    if rank == 0:
        results.put((min(seconds), np.array(all_of_them[2])))
    del all_of_them
    memory.close()


def ours() -> tuple[float, np.ndarray]:
    comm = gr.comm.init()
    gradient = comm.empty(ELEMENTS)
    seconds = []
    for turn in range(ROUNDS):
        gradient[:] = numbers(comm.rank, turn)
        comm.barrier()
        begin = time.perf_counter()
        comm.all_reduce(gradient)
        seconds.append(time.perf_counter() - begin)
    return min(seconds), np.array(gradient)


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    memory = shared_memory.SharedMemory(create=True, size=3 * 4 * ELEMENTS)
    try:
        barrier, results = spawn.Barrier(2), spawn.Queue()
        processes = [spawn.Process(target=usual, args=(rank, memory.name, barrier, results)) for rank in range(2)]
        for process in processes:
            process.start()
        usual_seconds, expected = results.get(timeout=120)
        for process in processes:
            process.join()
    finally:
        memory.close()
        memory.unlink()
    (seconds, sums), _ = gr.comm.spawn(ours, 2)
    report("SharedMemory and Barrier", usual_seconds, seconds, difference(expected, sums), 0.0)


if __name__ == "__main__":
    main()
