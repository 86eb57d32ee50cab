"""What gradring's own launcher gave to this process: in memory alone, so that its child processes inherit nothing."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field

__all__ = ["Inherited", "inherit", "inherited"]


@dataclass
class Inherited:
    """A rank of `gradring run` or `gr.comm.spawn`."""

    pid: int
    rank: int
    size: int
    generation: int
    key: bytes
    link: socket.socket
    welcomed: bool = False
    meetings: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # one conversation at a time


_inherited: Inherited | None = None


def inherit(value: Inherited) -> None:
    """Called once, when a rank begins."""
    global _inherited
    _inherited = value


def inherited() -> Inherited | None:
    """What this process was given; None in a process that no launcher of gradring started, and in its forked children."""
    return _inherited if _inherited is not None and _inherited.pid == os.getpid() else None
