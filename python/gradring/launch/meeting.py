"""How a rank finds the others, under every launcher."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from gradring.arguments import real
from gradring.launch.channel import Descriptor, wait_for_welcome
from gradring.launch.environment import hints
from gradring.launch.foreign import meet_under
from gradring.launch.inherited import Inherited, inherited
from gradring.launch.world import World, meet, own_pidfd

__all__ = ["rendezvous"]


def rendezvous(timeout: float = 300.0) -> World | None:
    """Meet the other ranks of this world. Returns None in a process that is a world of its own.

    Under `gradring run` and `gr.comm.spawn` the ranks meet over channels that they inherited; under torchrun, mpirun and
    srun, whose variables say how many ranks there are, over a Unix socket in an owner-only folder. Every call is a new
    meeting, which all ranks must join. Raises ``PeerStalled`` if they do not join within `timeout` seconds, ``PeerDied``
    if one ended instead, and ``ValueError`` for variables that contradict each other.
    """
    timeout = real("init", "timeout", timeout, above=0)
    own = inherited()
    if own is not None:
        if own.size == 1:
            return None
        rank, size = own.rank, own.size
    else:
        found = hints()
        if found is None or found.size == 1:
            return None
        rank, size = found.rank, found.size
    brought = _bring(rank, size)
    numbers = [descriptor.fd for descriptor in brought]
    try:
        if own is not None:
            return _meet_inherited(own, numbers, timeout)
        assert found is not None
        return meet_under(found, numbers, timeout)
    finally:
        for descriptor in brought:
            descriptor.close()


def _bring(rank: int, size: int) -> list[Descriptor]:
    core: Any = import_module("gradring._core")
    brought = [own_pidfd(), Descriptor(core.comm_data_segment())]
    if rank == 0:
        brought.append(Descriptor(core.comm_segment(size, 0)))
    return brought


def _meet_inherited(own: Inherited, brought: list[int], timeout: float) -> World:
    deadline = time.monotonic() + timeout
    with own.lock:
        if not own.welcomed:
            wait_for_welcome(own.link, own.key, deadline)
            own.welcomed = True
        number = own.meetings
        own.meetings += 1
        return meet(own.link, own.rank, own.size, own.generation, number, brought, deadline, lock=own.lock)
