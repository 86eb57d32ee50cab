"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a new file beside ``path`` and put it in its place when the block ends; an error leaves ``path`` as it was.

    The file is on the disk before it gets its name, and the name before this returns, so that a crash at any moment
    leaves either the old file or the new one.
    """
    target = os.path.realpath(os.fspath(path))
    folder = os.path.dirname(target)
    # A fresh name, not tempfile's: that would make the file private, where an ordinary file follows the umask.
    temporary = os.path.join(folder, f".{os.path.basename(target)[:200]}.{os.getpid()}.{os.urandom(4).hex()}")
    file = open(temporary, "xb")  # noqa: SIM115 (closed below, before the rename)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
