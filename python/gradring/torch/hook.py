"""A communication hook of DistributedDataParallel."""

from __future__ import annotations

from typing import Any

from gradring.comm import Communicator
from gradring.torch.futures import Completer
from gradring.torch.tensors import as_array, communicator

__all__ = ["ddp_hook"]

_completer: Completer | None = None


def ddp_hook(comm: Communicator | None, bucket: Any) -> Any:
    """Average a bucket of gradients with gradring: ``model.register_comm_hook(None, gradring.torch.ddp_hook)``.

    `comm`: the communicator, or None for this process's world. The reduction runs during the backward pass. The sum is
    divided once, at its end, by the number of ranks.
    """
    global _completer
    if _completer is None:
        _completer = Completer()
    group = communicator() if comm is None else comm
    buffer = bucket.buffer()
    return _completer.future(group.all_reduce(as_array("ddp_hook", buffer), "mean", async_op=True), buffer)
