"""The payload of worker processes: an object that is pickled once into anonymous memory, which they inherit and map.

Large buffers (NumPy arrays) are not copied into the pickle but lie beside it. Every worker maps the same pages, and
gets its own copy of a page only when it writes to it. Only this process and its own children can reach that memory,
so it is safe to unpickle; nothing is ever unpickled from a socket.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["Payload", "load_payload"]

_ALIGN = 64
_COUNT = struct.Struct("<Q")
_SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # F_SEAL_SEAL, _SHRINK, _GROW, _WRITE
_ADD_SEALS = 1033


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


class Payload:
    """Memory whose descriptor workers can inherit before it is filled."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("gradring-payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.filled = False

    def fill(self, preparation: dict[str, Any], value: Any) -> None:
        """Writes what makes the main module importable, then the object itself, then its buffers."""
        buffers: list[pickle.PickleBuffer] = []
        parts: list[Any] = [
            pickle.dumps(preparation, protocol=5),
            pickle.dumps(value, protocol=5, buffer_callback=buffers.append),
        ]
        parts += [buffer.raw() for buffer in buffers]
        sizes = [memoryview(part).nbytes for part in parts]
        head = _COUNT.pack(len(sizes)) + b"".join(_COUNT.pack(size) for size in sizes)
        offset = 0
        for part in (head, *parts):
            _write_all(self.fd, part, offset)
            offset += _aligned(memoryview(part).nbytes)
        os.ftruncate(self.fd, offset)
        fcntl.fcntl(self.fd, _ADD_SEALS, _SEALS)
        self.filled = True

    def close(self) -> None:
        """Release the memory. Workers that have mapped it keep it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _write_all(fd: int, part: Any, offset: int) -> None:
    view = memoryview(part).cast("B")
    while view.nbytes:
        done = os.pwrite(fd, view[: 1 << 30], offset)
        view, offset = view[done:], offset + done


def load_payload(fd: int, prepare: Callable[[dict[str, Any]], object]) -> Any:
    """In a worker: call `prepare` with the main module's data, and return the object, whose buffers are mapped
    copy-on-write."""
    memory = memoryview(mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
    (count,) = _COUNT.unpack_from(memory, 0)
    sizes = [_COUNT.unpack_from(memory, 8 * (i + 1))[0] for i in range(count)]
    offset = _aligned(8 * (count + 1))
    parts = []
    for size in sizes:
        parts.append(memory[offset : offset + size])
        offset += _aligned(size)
    prepare(pickle.loads(parts[0]))
    return pickle.loads(parts[1], buffers=parts[2:])
