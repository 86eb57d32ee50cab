"""Which rank runs on which cores: the cores that this process may use are divided among the ranks, and no two jobs get
the same ones."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["Cores", "divide"]


def divide(cpus: list[int], ranks: int) -> list[list[int]] | None:
    """Consecutive parts of nearly equal size, one per rank; None if there are more ranks than processors.

    >>> divide([0, 1, 2, 3, 4], 2)
    [[0, 1, 2], [3, 4]]
    """
    if not 0 < ranks <= len(cpus):
        return None
    small, larger = divmod(len(cpus), ranks)
    parts, at = [], 0
    for rank in range(ranks):
        size = small + (rank < larger)
        parts.append(cpus[at : at + size])
        at += size
    return parts


class Cores:
    """A job's claim on processors. A claim is an abstract Unix socket name, which ends with the process that holds it.

    Jobs of other users respect it too. Containers with separate networks do not see each other's claims.
    """

    def __init__(self, ranks: int, *, pin: bool) -> None:
        self._claims: list[socket.socket] = []
        allowed = sorted(os.sched_getaffinity(0), key=_place)
        self.threads = max(len(allowed) // ranks, 1)
        self.parts: list[list[int]] | None = None  # the processors of each rank; None if ranks are not pinned
        self.note = ""
        if not pin or ranks > len(allowed):
            return
        claimed = [cpu for cpu in allowed if self._claim(cpu)]
        self.parts = divide(claimed, ranks)
        if self.parts is None:
            self.close()
            self.note = (
                f"other jobs have pinned their ranks to {len(allowed) - len(claimed)} of the {len(allowed)} processors; "
                f"ranks are not pinned"
            )
        else:
            self.threads = max(len(claimed) // ranks, 1)

    def of(self, rank: int) -> list[int] | None:
        """The processors of that rank; None if it is not pinned."""
        return None if self.parts is None else self.parts[rank]

    def close(self) -> None:
        """Gives the claims back."""
        for claim in self._claims:
            claim.close()
        self._claims = []

    def _claim(self, cpu: int) -> bool:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0gradring/processor/{cpu}")
        except OSError:
            claim.close()
            return False
        self._claims.append(claim)
        return True


def _place(cpu: int) -> tuple[int, int, int]:
    """The sort key (package, core, processor): threads of one core, and cores of one package, are neighbours."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    with suppress(OSError, ValueError):
        package, core = (int((folder / name).read_text()) for name in ("physical_package_id", "core_id"))
        return package, core, cpu
    return 0, cpu, cpu
