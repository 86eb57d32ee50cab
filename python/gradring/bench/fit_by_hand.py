"""An epoch over Fashion-MNIST with the steps written out by hand: gathers into arrays made once, no autograd."""

from __future__ import annotations

from typing import Any

import numpy as np

from .contender import Work
from .fit_contenders import data
from .step_by_hand import flat_state, numpy_work, torch_work
from .step_contenders import threads


def numpy_epoch(case: dict[str, Any]) -> Work:
    """NumPy with its OpenBLAS."""
    x, y = data()
    batch, state = case["batch"], flat_state(case)
    rest = len(x) % batch
    xb, yb = np.empty((batch, x.shape[1]), np.float32), np.empty(batch, np.int64)
    step = numpy_work(state, xb, yb)
    last = numpy_work(state, xb[:rest], yb[:rest]) if rest else None
    rng = np.random.default_rng(0)

    def epoch() -> float:
        order, total = rng.permutation(len(x)), 0.0
        for begin in range(0, len(x) - rest, batch):
            index = order[begin : begin + batch]
            x.take(index, axis=0, out=xb, mode="clip")  # "raise" would gather into a buffer first
            y.take(index, out=yb, mode="clip")
            total += step()
        if last is not None:
            index = order[-rest:]
            x.take(index, axis=0, out=xb[:rest], mode="clip")
            y.take(index, out=yb[:rest], mode="clip")
            total += last()
        return total

    return epoch


def torch_epoch(case: dict[str, Any]) -> Work:
    """PyTorch's kernels in inference mode."""
    import torch

    torch.set_num_threads(threads())
    x, y = (torch.from_numpy(array) for array in data())
    batch, state = case["batch"], flat_state(case)
    rest = len(x) % batch
    xb, yb = torch.empty(batch, x.shape[1]), torch.empty(batch, dtype=torch.int64)
    step = torch_work(state, xb, yb)
    last = torch_work(state, xb[:rest], yb[:rest]) if rest else None

    def epoch() -> float:
        order, total = torch.randperm(len(x)), 0.0
        for begin in range(0, len(x) - rest, batch):
            index = order[begin : begin + batch]
            torch.index_select(x, 0, index, out=xb)
            torch.index_select(y, 0, index, out=yb)
            total += step()
        if last is not None:
            index = order[-rest:]
            torch.index_select(x, 0, index, out=xb[:rest])
            torch.index_select(y, 0, index, out=yb[:rest])
            total += last()
        return total

    return epoch
