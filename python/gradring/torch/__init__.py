"""gradring's collectives in PyTorch: for CPU tensors, as a hook of DistributedDataParallel, and as a process group.

>>> import torch, gradring.torch
>>> gradring.torch.all_reduce(torch.ones(2))          # without a launcher: a world of one
tensor([1., 1.])

Importing this module registers the backend: under torchrun, ``torch.distributed.init_process_group("gradring")``; under
``gradring run`` call :func:`init_process_group`, which needs no address and no port.
"""

from __future__ import annotations

from gradring.torch.hook import ddp_hook
from gradring.torch.process_group import GradringProcessGroup, init_process_group
from gradring.torch.tensors import all_reduce, communicator

__all__ = ["GradringProcessGroup", "all_reduce", "communicator", "ddp_hook", "init_process_group"]
