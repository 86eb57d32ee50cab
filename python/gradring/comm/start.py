"""Makes communicators: for the ranks of a launcher, for one process alone, or for threads."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from gradring import _core
from gradring.arguments import real, whole
from gradring.comm.communicator import Communicator

__all__ = ["init", "thread_group"]

_MOST_RANKS = 256  # kMostRanks of csrc/comm/protocol.h


def init(timeout: float = 300.0) -> Communicator:
    """Join the world that a launcher started, or make a world of one rank where there is no launcher.

    ``timeout`` says how many seconds an operation may wait for another rank before it raises ``PeerStalled``.

    >>> import gradring as gr
    >>> comm = gr.comm.init()
    >>> comm.rank, comm.size
    (0, 1)
    >>> comm.close()
    """
    timeout = real("init", "timeout", timeout, above=0)
    if find_spec("gradring.launch") is None:
        return _alone(timeout)
    launch: Any = import_module("gradring.launch")
    world = launch.rendezvous(timeout)
    if world is None:
        return _alone(timeout)
    group = _core.Group(
        world.segment_fd, world.rank, world.size, world.generation, world.pidfds, world.data_fds, timeout
    )
    return Communicator(
        group,
        local_rank=world.local_rank,
        local_size=world.local_size,
        generation=world.generation,
        signal_of=world.signal_of,
        tells=True,
    )


def _alone(timeout: float) -> Communicator:
    segment, data = _core.comm_segment(1), _core.comm_data_segment()
    try:
        return Communicator(_core.Group(segment, 0, 1, 0, [-1], [data], timeout))
    finally:
        os.close(segment)
        os.close(data)


def thread_group(n: int, timeout: float = 300.0) -> list[Communicator]:
    """``n`` communicators of one group, for ``n`` threads of this process: give each thread one.

    A rank ends with the thread that used it last (unless another thread uses it afterwards), or with its communicator.

    >>> import gradring as gr, numpy as np
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     sums = list(pool.map(lambda comm: comm.all_reduce(np.ones(2)), gr.comm.thread_group(2)))
    >>> sums
    [array([2., 2.]), array([2., 2.])]
    """
    n = whole("thread_group", "n", n, 1, _MOST_RANKS)
    timeout = real("thread_group", "timeout", timeout, above=0)
    return [Communicator(group) for group in _core.thread_groups(n, timeout)]
