"""How a process ended."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from dataclasses import dataclass

__all__ = ["Ended", "end_of_pidfd"]

# struct pidfd_info of include/uapi/linux/pidfd.h in its first version; the exit status comes last.
_BYTES = 64
_GET_INFO = 3 << 30 | _BYTES << 16 | 0xFF << 8 | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)
_EXIT = 1 << 3


@dataclass(frozen=True)
class Ended:
    """The signal that killed a process, or else its exit code. Both are None if the system does not know."""

    signal: int | None = None
    code: int | None = None

    @classmethod
    def from_wait(cls, code: int) -> Ended:
        """Convert the result of `Popen.wait`."""
        return cls(signal=-code) if code < 0 else cls(code=code)

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                return f"was killed by {signal.Signals(self.signal).name}"
            except ValueError:
                return f"was killed by signal {self.signal}"
        return "ended" if self.code is None else f"ended with exit code {self.code}"


def end_of_pidfd(pidfd: int) -> Ended:
    """How a process that was reaped ended, as the kernel remembers it from Linux 6.15 on."""
    data = bytearray(_BYTES)
    struct.pack_into("Q", data, 0, _EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, data)
    except OSError:
        return Ended()
    if not struct.unpack_from("Q", data)[0] & _EXIT:
        return Ended()
    status = struct.unpack_from("i", data, _BYTES - 4)[0]
    return Ended.from_wait(os.waitstatus_to_exitcode(status))
