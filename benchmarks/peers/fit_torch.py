"""Epochs in PyTorch: eager autograd, torch.compile, and the formulas by hand through Inductor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from step_torch import torch_compiled_body, torch_parts

from gradring.bench.contender import Work
from gradring.bench.fit_contenders import Passes, block_rows, data
from gradring.bench.step_contenders import threads


def torch_eager(case: dict[str, Any]) -> Work:
    """PyTorch, eager."""
    return _torch(case)


def torch_compiled(case: dict[str, Any]) -> Work:
    """PyTorch, forward and backward through torch.compile."""
    return _torch(case, dynamic=False)


def _passes(case: dict[str, Any], step: Callable[[Any, Any], Any]) -> Passes:
    """Epochs of this step, whose losses are read once per epoch."""
    import torch

    x, y = (torch.from_numpy(array) for array in data(case))
    batch, block = case["batch"], block_rows(x, case["batch"])

    def one(order: Any) -> float:
        total = torch.zeros(())
        for begin in range(0, len(order), block):
            index = order[begin : begin + block]
            for xb, yb in zip(x[index].split(batch), y[index].split(batch), strict=True):
                total += step(xb, yb)
        return float(total)

    return Passes(case, len(x), one, lambda: torch.randperm(len(x)), torch.arange)


def _torch(case: dict[str, Any], **compiling: Any) -> Work:
    forward, optimizer = torch_parts(case, **compiling)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return _passes(case, step)


def torch_epoch_compiled(case: dict[str, Any]) -> Work:
    """The step as one Inductor graph."""
    import torch

    torch.set_num_threads(threads())
    passes = _passes(case, torch_compiled_body(case))
    mode = torch.inference_mode

    class Inference:
        def __call__(self) -> object:
            with mode():
                return passes()

        def check(self, count: int) -> list[float]:
            with mode():
                return passes.check(count)

    return Inference()
