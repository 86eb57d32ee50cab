"""What gradring's own launcher passed to this process. It is kept in memory only, so that child processes do not
inherit it."""

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
    """What the launcher passed to this process; None in a process that gradring did not start, and in forked children."""
    return _inherited if _inherited is not None and _inherited.pid == os.getpid() else None
