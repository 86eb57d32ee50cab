"""Data parallelism: each of two ranks computes the gradients of its half of every batch.

Usual: PyTorch's ``DistributedDataParallel`` over gloo, in two processes. gradring: ``Trainer(comm=...)`` in two
processes, which share the parameters.

pip install torch
python examples/gallery/10_ddp.py [full]
"""

import os
import tempfile
import time
from typing import Any

import numpy as np
from classifier import RATE, data, model
from compare import difference, report, size

import gradring as gr

STEPS, BATCH = size(20, 200), size(128, 1024)


def usual(rank: int, folder: str) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    x, y = (torch.from_numpy(array) for array in data(STEPS * BATCH))
    linear = torch.nn.Linear(64, 10, bias=False)
    torch.nn.init.zeros_(linear.weight)
    parallel = torch.nn.parallel.DistributedDataParallel(linear, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=RATE)
    half = BATCH // 2
    begin = 0.0
    for step in range(STEPS):
        if step == 2:  # the first steps build the buckets
            begin = time.perf_counter()
        own = slice(step * BATCH + rank * half, step * BATCH + rank * half + half)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(parallel(x[own]), y[own]).backward()
        optimizer.step()
    seconds = (time.perf_counter() - begin) / (STEPS - 2)
    if rank == 0:
        np.savez(os.path.join(folder, "result.npz"), w=linear.weight.detach().numpy().T, seconds=seconds)
    torch.distributed.destroy_process_group()


def in_processes() -> Any:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(usual, args=(folder,), nprocs=2)
        with np.load(os.path.join(folder, "result.npz")) as result:
            return float(result["seconds"]), result["w"]


def ours() -> tuple[float, np.ndarray]:
    comm = gr.comm.init()
    x, y = data(STEPS * BATCH)
    trainer = gr.Trainer(model(), optimizer=gr.optim.SGD(RATE), comm=comm, threads=1)
    half, begin = BATCH // 2, 0.0
    for step in range(STEPS):
        if step == 2:
            begin = time.perf_counter()
        own = slice(step * BATCH + comm.rank * half, step * BATCH + comm.rank * half + half)
        trainer.step(x[own], y[own])
    return (time.perf_counter() - begin) / (STEPS - 2), np.array(trainer.params["0.weight"])


def main() -> None:
    usual_seconds, expected = in_processes()
    (seconds, weights), (_, other) = gr.comm.spawn(ours, 2)
    assert np.array_equal(weights, other)  # on both ranks
    report("a step of DistributedDataParallel", usual_seconds, seconds, difference(expected, weights), 1e-4)


if __name__ == "__main__":
    main()
