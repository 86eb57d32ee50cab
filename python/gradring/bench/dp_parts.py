"""What a rank of ``gradring bench dp`` says of its steps beside their time: their parts, meetings, traffic and update."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .contender import Work
from .dp_contenders import LEARNING_RATE

__all__ = ["counts_of", "parts_of", "reduce_and_update"]


def parts_of(trainer: Any, step: Work, steps: int) -> dict[str, float]:
    """Seconds per step in each part of it, by the trainer's own clocks, and all seconds per step as ``"step"``."""
    before, begin = trainer.timings(), time.perf_counter()
    for _ in range(steps):
        step()
    seconds = (time.perf_counter() - begin) / steps
    return {"step": seconds} | {name: (value - before[name]) / steps for name, value in trainer.timings().items()}


def counts_of(trainer: Any) -> dict[str, int]:
    """How often a rank meets the others in a step, and how many bytes of gradients it reads for its part of the sums."""
    graph = trainer.session.plan().graph
    meetings = sum("meeting" in node.attributes for node in graph.nodes if node.op in ("meet", "end_update", "meet_squares"))
    read = 0
    for node in graph.nodes:
        if node.op == "sum_planes":
            planes, sum_ = graph.values[node.inputs["planes"]], graph.values[node.outputs["sum"]]
            read += planes.shape[0] * sum_.size * np.dtype(sum_.dtype).itemsize
    return {"meetings": meetings, "bytes": read}


def reduce_and_update(comm: Any, trainer: Any, step: Work, steps: int) -> tuple[float, float]:
    """Seconds per step for the update of all ranks together, which sums gradients and applies AdamW to parameters that exist
    once; and for an all_reduce of as many gradients, after which each rank applies AdamW to parameters of its own."""
    import gradring as gr

    parts = parts_of(trainer, step, steps)
    together = parts["reduction"] + parts["update"]
    elements = sum(array.size for array in trainer.params.values())
    gradient = comm.empty(elements, np.float32)
    gradient[...] = 1e-3
    parameter, m, v = (np.zeros(elements, np.float32) for _ in range(3))
    seconds = []
    for number in range(steps + 1):  # the first one brings all pages into memory
        comm.barrier()
        begin = time.perf_counter()
        comm.all_reduce(gradient)
        gr.ops.adamw_update(parameter, gradient, m, v, step=number + 1, lr=LEARNING_RATE, weight_decay=0.01)
        comm.barrier()
        seconds.append(time.perf_counter() - begin)
        gradient[...] = 1e-3
    return together, sum(seconds[1:]) / steps
