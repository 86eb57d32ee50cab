"""Collectives between ranks on one host, for gradring's own training or for any other training loop.

Ranks are processes (``gradring run``, ``gr.comm.spawn``, torchrun, mpirun, srun) or threads of this one. Every call ends
in success, ``PeerDied`` within a second of a death, ``PeerStalled`` at its deadline, or ``CollectiveMismatch``.

>>> import gradring as gr, numpy as np
>>> with gr.comm.init() as comm:            # without a launcher: a world of one
...     x = comm.empty(3, "float32")        # in shared memory: collectives on it copy nothing
...     x[:] = [1, 2, 3]
...     comm.all_reduce(x, op="mean")
array([1., 2., 3.], dtype=float32)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradring.comm.communicator import Communicator
from gradring.comm.start import init, thread_group
from gradring.comm.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Communicator", "Work", "init", "spawn", "thread_group"]


def spawn(fn: Callable[..., Any], nprocs: int, *args: Any, **options: Any) -> Any:
    """Run ``fn(*args)`` in ``nprocs`` fresh processes, the ranks of one world; see ``gradring.launch.spawn``."""
    launch: Any = import_module("gradring.launch")
    return launch.spawn(fn, nprocs, *args, **options)
