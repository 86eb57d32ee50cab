"""Data parallelism by hand: a sampler gives each process its samples, and the program adds up the gradients itself.

Usual: PyTorch's ``DistributedSampler`` and ``torch.distributed.all_reduce`` over gloo. gradring: a loader with
``rank`` and ``world_size``, and ``comm.all_reduce``.

pip install torch
python examples/gallery/12_manual_all_reduce.py [full]
"""

import os
import tempfile
import time
from typing import Any

import numpy as np
from classifier import RATE, data, gradient
from compare import difference, report, size

import gradring as gr

SAMPLES, BATCH = size(2_560, 65_536), 64  # of each process


def usual(rank: int, folder: str) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    x, y = data(SAMPLES)
    samples = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    sampler = torch.utils.data.DistributedSampler(samples, 2, rank, shuffle=False)
    loader = torch.utils.data.DataLoader(samples, BATCH, sampler=sampler)
    w = np.zeros((64, 10), np.float32)
    begin = time.perf_counter()
    for xs, ys in loader:
        total = torch.from_numpy(gradient(w, xs.numpy(), ys.numpy()))
        torch.distributed.all_reduce(total)
        w -= np.float32(RATE / (2 * len(xs))) * total.numpy()
    seconds = time.perf_counter() - begin
    if rank == 0:
        np.savez(os.path.join(folder, "result.npz"), w=w, seconds=seconds)
    torch.distributed.destroy_process_group()


def in_torch() -> Any:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(usual, args=(folder,), nprocs=2)
        with np.load(os.path.join(folder, "result.npz")) as result:
            return float(result["seconds"]), result["w"]


def ours() -> tuple[float, np.ndarray]:
    comm = gr.comm.init()
    w, total = np.zeros((64, 10), np.float32), comm.empty((64, 10))
    with gr.Loader(data(SAMPLES), batch_size=BATCH, rank=comm.rank, world_size=comm.size) as loader:
        begin = time.perf_counter()
        for x, y in loader:
            total[:] = gradient(w, x, y)
            comm.all_reduce(total)
            w -= np.float32(RATE / (2 * len(x))) * total
        return time.perf_counter() - begin, w


def main() -> None:
    usual_seconds, expected = in_torch()
    (seconds, weights), (_, other) = gr.comm.spawn(ours, 2)
    assert np.array_equal(weights, other)  # on both ranks
    # The samplers deal out the samples in different orders, but each step of both ranks together has the same ones.
    report("all_reduce of gloo", usual_seconds, seconds, difference(expected, weights), 1e-4)


if __name__ == "__main__":
    main()
