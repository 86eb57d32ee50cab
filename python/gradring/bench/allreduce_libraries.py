"""The libraries that race in `gradring bench allreduce`, as a rank sees them: memory to reduce in, and one call."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["LIBRARIES", "AllReduce", "Array", "Library"]

Array = NDArray[np.float32]
# Sums a float32 array over the ranks, in place.
AllReduce = Callable[[Array], object]


class Library:
    """`empty(count)` returns memory that suits this library; `all_reduce(array)` sums in place; `about` names its
    version."""

    def __init__(self, empty: Callable[[int], Array], all_reduce: Callable[[Array], AllReduce], about: str) -> None:
        self.empty, self.bind, self.about = empty, all_reduce, about


def _numpy(count: int) -> Array:
    return np.empty(count, np.float32)


def _ours(rank: int, size: int, folder: str, **options: str) -> Library:
    import gradring as gr

    comm = gr.comm.init(timeout=60.0)
    shared = "numpy" not in options
    return Library(
        (lambda count: comm.empty(count, "float32")) if shared else _numpy,
        lambda array: lambda x=array, call=comm.all_reduce: call(x),  # type: ignore[misc]
        gr.__version__,
    )


def _gloo(rank: int, size: int, folder: str, **options: str) -> Library:
    import torch
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "gloo"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)

    def bind(array: Array) -> AllReduce:
        tensor = torch.from_numpy(array)  # the same memory, made once
        return lambda _: dist.all_reduce(tensor)

    return Library(_numpy, bind, torch.__version__)


LIBRARIES: dict[str, Callable[..., Library]] = {"ours": _ours, "gloo": _gloo}
