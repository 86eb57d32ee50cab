"""Epochs with the steps written out by hand: gathers into arrays made once, no autograd."""

from __future__ import annotations

from typing import Any

import numpy as np

from .contender import Work
from .fit_contenders import Passes, block_rows, data
from .step_by_hand import flat_state, numpy_update, numpy_work, torch_update, torch_work
from .step_contenders import threads


def cut(count: int, batch: int) -> list[slice]:
    """The batches of `count` rows, the last of which may be shorter."""
    return [slice(begin, min(begin + batch, count)) for begin in range(0, count, batch)]


def numpy_epoch(case: dict[str, Any]) -> Work:
    """NumPy with its OpenBLAS."""
    x, y = data(case)
    batch, state, block = case["batch"], flat_state(case), block_rows(x, case["batch"])
    xs, ys = np.empty((block, x.shape[1]), np.float32), np.empty(block, np.int64)
    steps: dict[int, Any] = {}  # by the rows of a batch
    batches: dict[int, list[Any]] = {}  # by the rows of a block: the step and the rows of each batch
    rng, update = np.random.default_rng(0), numpy_update(state, case)

    def prepare(count: int) -> list[Any]:
        for part in cut(count, batch):
            rows = part.stop - part.start
            if rows not in steps:
                steps[rows] = numpy_work(state, rows, update)
        return [(steps[part.stop - part.start], xs[part], ys[part]) for part in cut(count, batch)]

    def one(order: np.ndarray) -> float:
        total = 0.0
        for begin in range(0, len(order), block):
            index = order[begin : begin + block]
            count = len(index)
            x.take(index, axis=0, out=xs[:count], mode="clip")  # "raise" would gather into a buffer first
            y.take(index, out=ys[:count], mode="clip")
            if count not in batches:
                batches[count] = prepare(count)
            for step, xb, yb in batches[count]:
                total += step(xb, yb)
        return total

    return Passes(case, len(x), one, lambda: rng.permutation(len(x)), np.arange)


def torch_epoch(case: dict[str, Any]) -> Work:
    """PyTorch's kernels in inference mode."""
    import torch

    torch.set_num_threads(threads())
    x, y = (torch.from_numpy(array) for array in data(case))
    batch, state, block = case["batch"], flat_state(case), block_rows(x, case["batch"])
    xs, ys = torch.empty(block, x.shape[1]), torch.empty(block, dtype=torch.int64)
    batches: dict[int, list[Any]] = {}
    shared: dict[int, Any] = {}
    update = torch_update(state, case)

    def prepare(count: int) -> list[Any]:
        return [torch_work(state, xs[part], ys[part], update, shared) for part in cut(count, batch)]

    def one(order: Any) -> float:
        total = 0.0
        for begin in range(0, len(order), block):
            index = order[begin : begin + block]
            count = len(index)
            torch.index_select(x, 0, index, out=xs[:count])
            torch.index_select(y, 0, index, out=ys[:count])
            if count not in batches:
                batches[count] = prepare(count)
            for step in batches[count]:
                total += step()
        return total

    return Passes(case, len(x), one, lambda: torch.randperm(len(x)), torch.arange)
