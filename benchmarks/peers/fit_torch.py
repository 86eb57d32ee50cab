"""An epoch over Fashion-MNIST in PyTorch: eager autograd, torch.compile, and the formulas by hand through Inductor."""

from __future__ import annotations

from typing import Any

from step_torch import torch_compiled_body, torch_parts

from gradring.bench.contender import Work
from gradring.bench.fit_contenders import data
from gradring.bench.step_contenders import threads


def torch_eager(case: dict[str, Any]) -> Work:
    """PyTorch, eager."""
    return _torch(case)


def torch_compiled(case: dict[str, Any]) -> Work:
    """PyTorch, forward and backward through torch.compile."""
    return _torch(case, dynamic=False)


def _torch(case: dict[str, Any], **compiling: Any) -> Work:
    import torch

    forward, optimizer = torch_parts(case, **compiling)
    xs, ys = data()
    x, y = torch.from_numpy(xs), torch.from_numpy(ys)
    batch = case["batch"]

    def epoch() -> float:
        order = torch.randperm(len(x))
        total = torch.zeros(())
        for begin in range(0, len(x), batch):
            index = order[begin : begin + batch]
            optimizer.zero_grad(set_to_none=True)
            loss = forward(x[index], y[index])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total)

    return epoch


def torch_epoch_compiled(case: dict[str, Any]) -> Work:
    """The step as one Inductor graph, its loss read once at the end of the epoch."""
    import torch

    torch.set_num_threads(threads())
    x, y = (torch.from_numpy(array) for array in data())
    body, batch = torch_compiled_body(case), case["batch"]

    @torch.inference_mode()
    def epoch() -> float:
        order, total = torch.randperm(len(x)), torch.zeros(())
        for begin in range(0, len(x), batch):
            index = order[begin : begin + batch]
            total += body(x[index], y[index])
        return float(total)

    return epoch
