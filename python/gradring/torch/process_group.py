"""A process group of torch.distributed over a communicator, of all ranks or of some: CPU tensors on one host."""

from __future__ import annotations

import atexit
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist

from gradring.comm import Communicator, Work
from gradring.errors import NotBuilt
from gradring.launch.shared_file import share_file
from gradring.torch.futures import Completer
from gradring.torch.tensors import as_array, communicator

__all__ = ["GradringProcessGroup", "init_process_group"]

_OPS = {"SUM": "sum", "AVG": "mean", "MAX": "max", "MIN": "min", "PRODUCT": "prod"}


class _Done:
    """The work of an operation that has ended before it is returned."""

    def wait(self, timeout: float | None = None) -> None:
        """Return at once, because the operation has ended."""


class _Pending(dist._Work):
    """A work of torch.distributed for an operation, with a function to call when the operation has ended."""

    def __init__(self, work: Work | _Done, result: Any, completer: Completer, finish: Any = None) -> None:
        super().__init__()
        self._work, self._result, self._completer, self._finish = work, result, completer, finish
        self._future: Any = None

    def wait(self, timeout: timedelta | None = None) -> bool:
        seconds = timeout.total_seconds() if timeout else 0.0
        self._work.wait(seconds or None)
        if self._finish is not None:
            finish, self._finish = self._finish, None
            finish()
        return True

    def is_completed(self) -> bool:
        return isinstance(self._work, _Done) or self._work.done()

    def get_future(self) -> Any:
        if self._future is None:
            if isinstance(self._work, _Done) or self._finish is not None:
                self.wait()
                self._future = torch.futures.Future()
                self._future.set_result(self._result)
            else:
                self._future = self._completer.future(self._work, self._result)
        return self._future

    def result(self) -> Any:
        return self._result


class GradringProcessGroup(dist.ProcessGroup):
    """all_reduce, broadcast, all_gather, reduce_scatter, send, recv and barrier, for DistributedDataParallel and others."""

    def __init__(self, comm: Communicator) -> None:
        super().__init__(comm.rank, comm.size)
        self._comm = comm
        self._completer = Completer()
        self._name = self._description = ""

    def getGroupName(self) -> str:
        """The name under which torch.distributed has registered the backend."""
        return self._name

    def setGroupName(self, name: str) -> None:
        """Set by torch.distributed, which reads it later."""
        self._name = name

    def getGroupDesc(self) -> str:
        """The description that `new_group` was given."""
        return self._description

    def setGroupDesc(self, description: str) -> None:
        """Set by torch.distributed, which reads it later."""
        self._description = description

    def shutdown(self) -> None:
        """Called by `destroy_process_group`: waits for operations under way, then leaves the group."""
        self._comm.close()

    def getBackendName(self) -> str:
        """The name by which torch.distributed knows it."""
        return "gradring"

    def getSize(self) -> int:
        """The number of ranks."""
        return self._comm.size

    def _pending(self, works: list[Work], result: Any, finish: Any = None) -> _Pending:
        # Operations of one communicator end in their order.
        return _Pending(works[-1] if works else _Done(), result, self._completer, finish)

    def allreduce(self, tensors: list[Any], opts: Any = None) -> _Pending:
        """Reduce each tensor over all ranks, in place."""
        op = _op(opts)
        works = [self._comm.all_reduce(as_array("all_reduce", t), op, async_op=True) for t in tensors]
        return self._pending(works, tensors)

    def allreduce_coalesced(self, tensors: list[Any], opts: Any = None) -> _Pending:
        """Reduce several tensors; each is an operation of its own."""
        return self.allreduce(tensors, opts)

    def broadcast(self, tensors: list[Any], opts: Any) -> _Pending:
        """Copy the root's tensors into those of all other ranks."""
        works = [self._comm.broadcast(as_array("broadcast", t), opts.rootRank, async_op=True) for t in tensors]
        return self._pending(works, tensors)

    def allgather(self, outputs: list[list[Any]], inputs: list[Any], opts: Any = None) -> _Pending:
        """Gather the tensor of every rank into a list of tensors."""
        works, gathered = [], []
        for given in inputs:
            array = as_array("all_gather", given)
            out = np.empty((self._comm.size, *array.shape), array.dtype)
            works.append(self._comm.all_gather(array, out, async_op=True))
            gathered.append(out)

        def finish() -> None:
            for arrays, tensors in zip(gathered, outputs, strict=True):
                for array, tensor in zip(arrays, tensors, strict=True):
                    as_array("all_gather", tensor)[...] = array

        return self._pending(works, outputs, finish)

    def _allgather_base(self, output: Any, given: Any, opts: Any = None) -> _Pending:
        array, out = as_array("all_gather", given), as_array("all_gather", output)
        work = self._comm.all_gather(array, out.reshape(self._comm.size, *array.shape), async_op=True)
        return self._pending([work], output)

    all_gather_single = _allgather_base  # its name from PyTorch 2.13 on

    def reduce_scatter(self, outputs: list[Any], inputs: list[list[Any]], opts: Any = None) -> _Pending:
        """Reduce a list of tensors, one per rank, so that each rank gets its own."""
        works = []
        for output, tensors in zip(outputs, inputs, strict=True):
            stacked = np.stack([as_array("reduce_scatter", tensor) for tensor in tensors])
            out = as_array("reduce_scatter", output)[np.newaxis]
            works.append(self._comm.reduce_scatter(stacked, _op(opts), out, async_op=True))
        return self._pending(works, outputs)

    def _reduce_scatter_base(self, output: Any, given: Any, opts: Any = None) -> _Pending:
        out = as_array("reduce_scatter", output)
        array = as_array("reduce_scatter", given).reshape(self._comm.size, *out.shape)
        return self._pending([self._comm.reduce_scatter(array, _op(opts), out[np.newaxis], async_op=True)], output)

    reduce_scatter_single = _reduce_scatter_base

    def send(self, tensors: list[Any], dst: int, tag: int = 0) -> _Pending:
        """Send tensors to one rank. Tags are ignored."""
        works = [self._comm.send(as_array("send", tensor), dst, async_op=True) for tensor in tensors]
        return self._pending(works, tensors)

    def recv(self, tensors: list[Any], src: int, tag: int = 0) -> _Pending:
        """Receive tensors from one rank. Tags are ignored."""
        works = [self._comm.recv(as_array("recv", tensor), src, async_op=True) for tensor in tensors]
        return self._pending(works, tensors)

    def barrier(self, opts: Any = None) -> _Pending:
        """Return when all ranks have called it."""
        self._comm.barrier()
        return self._pending([], None)

    def _planned(self, *_: Any, **__: Any) -> NoReturn:
        raise NotBuilt("[torch] this collective is planned; the backend has all_reduce, broadcast, all_gather, "
                       "reduce_scatter, send, recv and barrier")  # fmt: skip

    alltoall = alltoall_base = all_to_all_single = gather = scatter = reduce = _planned


def _op(opts: Any) -> Any:
    op = getattr(opts, "reduceOp", dist.ReduceOp.SUM)
    for name, ours in _OPS.items():
        if op == getattr(dist.ReduceOp, name):
            return ours
    raise ValueError(f"[all_reduce] op is {op}: must be one of {', '.join(_OPS)}")


def _create(store: Any, rank: int, size: int, timeout: timedelta) -> GradringProcessGroup:
    """Make the process group of all ranks, or of those of `new_group`. Only its members call this, and find each other
    by the store."""
    world = communicator(timeout.total_seconds())
    if size > world.size:
        raise ValueError(f"[torch] a group of {size} ranks: the launcher has started {world.size}")
    store.set(f"gradring/{rank}", str(world.rank))
    members = [int(store.get(f"gradring/{other}")) for other in range(size)]
    return GradringProcessGroup(
        world.group_of(
            members,
            lambda offset: store.set("gradring/words", str(offset)),
            lambda: int(store.get("gradring/words")),
        )
    )


dist.Backend.register_backend("gradring", _create, devices=["cpu"])


def init_process_group(timeout: float = 300.0) -> None:
    """``torch.distributed.init_process_group("gradring")`` for ranks of any launcher, without an address or a port.

    torch.distributed needs a store: a file in memory, which has no name. So nothing is left, however the ranks end.
    """
    world = communicator(timeout)
    # The store opens its file anew for each access, by this path. So the descriptor stays open as long as the process runs.
    store = dist.FileStore(f"/proc/self/fd/{share_file(world, timeout)}", world.size)
    dist.init_process_group(
        "gradring", store=store, rank=world.rank, world_size=world.size, timeout=timedelta(seconds=timeout)
    )


def _close() -> None:
    with suppress(Exception):
        if dist.is_initialized() and dist.get_backend() == "gradring":
            dist.destroy_process_group()


atexit.register(_close)
