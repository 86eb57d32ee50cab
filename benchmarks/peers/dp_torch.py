"""Data-parallel training steps in PyTorch: DistributedDataParallel over gloo, one process with one thread per rank."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from gradring.bench.dp_contenders import LEARNING_RATE, Processes, resident, serve, spawned
from gradring.bench.step_contenders import data, weights


def _require_layers(case: dict[str, Any]) -> None:
    if case.get("custom"):
        raise NotImplementedError("it computes gradients itself")


def ddp(case: dict[str, Any]) -> Processes:
    """PyTorch: DDP with gloo at its best: gradients are views of the buckets, and AdamW is the fused one."""
    _require_layers(case)
    return spawned(_rank, case, tempfile.mkdtemp(), True)


def ddp_default(case: dict[str, Any]) -> Processes:
    """PyTorch: DDP with gloo as it is by default, with the fused AdamW."""
    _require_layers(case)
    return spawned(_rank, case, tempfile.mkdtemp(), False)


def _rank(rank: int, case: dict[str, Any], pipe: Any, folder: str, views: bool) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    import torch

    torch.set_num_threads(1)
    ranks = case["ranks"]
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    before = resident()
    layers: list[Any] = []
    for w, b in weights(case):
        linear = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers[:-1]), gradient_as_bucket_view=views)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, fused=True)
    rows = slice(case["batch"] * rank // ranks, case["batch"] * (rank + 1) // ranks)
    x, y = (torch.from_numpy(array[rows]) for array in data(case))

    def step() -> float:
        # With views, gradients must stay in the buckets.
        optimizer.zero_grad(set_to_none=not views)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    serve(step, pipe, memory=lambda _: resident() - before)
    torch.distributed.destroy_process_group()
