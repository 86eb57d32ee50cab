"""CPU tensors as NumPy arrays over the same memory."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch

from gradring import comm as agree
from gradring.comm import Communicator

__all__ = ["all_reduce", "as_array", "communicator"]

_world: Communicator | None = None


def communicator(timeout: float = 300.0) -> Communicator:
    """This process's communicator. The first call makes it, and so does the first call after it was closed."""
    global _world
    if _world is None or _world._group.closed:
        _world = agree.init(timeout)
    return _world


def as_array(name: str, tensor: Any) -> np.ndarray[Any, Any]:
    """An array over a CPU tensor's memory; for bfloat16 it has the dtype of ml_dtypes."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"[{name}] tensor must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.device.type != "cpu":
        raise ValueError(f"[{name}] tensor is on {tensor.device}: must be on the CPU; use NCCL between GPUs")
    if tensor.layout is not torch.strided:
        raise ValueError(f"[{name}] tensor is of layout {tensor.layout}: must be dense; call to_dense() first")
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        array: np.ndarray[Any, Any] = tensor.view(torch.int16).numpy()
        return array.view(ml_dtypes.bfloat16)
    try:
        array = tensor.numpy()
    except TypeError as error:
        raise TypeError(f"[{name}] tensor is of {tensor.dtype}: NumPy has no such dtype") from error
    return array


def all_reduce(tensor: Any, op: Any = "sum", *, comm: Communicator | None = None, async_op: bool = False) -> Any:
    """Reduce a CPU tensor over all ranks, in place and without a copy; returns it, or with `async_op` a ``Work``.

    `op`: 'sum', 'mean', 'max', 'min' or 'prod'. `comm`: without it, this process's world. Autograd does not see the
    change, as with ``torch.distributed.all_reduce``.
    """
    group = communicator() if comm is None else comm
    work = group.all_reduce(as_array("all_reduce", tensor), op, async_op=async_op)
    return work if async_op else tensor
