"""A file to which a callback adds records during a run, and which never has a part of one."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from gradring.files import full_disk

__all__ = ["LogFile"]

_LOG = logging.getLogger("gradring.callbacks")


class LogFile:
    """An open file that grows by whole records.

    A log must not end a training. So where a record cannot be written, because the disk is full for example, what was written
    of it is removed, a warning says so, and ``add`` tries again with the next record. ``close`` tries once more, and raises
    ``OSError`` if records are still left.
    """

    def __init__(self, who: str, path: str, mode: str) -> None:
        self._who, self.path = who, path
        try:
            self._file = open(path, mode + "b", buffering=0)  # noqa: SIM115 (closed in close)
        except FileNotFoundError as error:
            folder = os.path.dirname(os.path.abspath(path))
            raise FileNotFoundError(
                f"[{who}] cannot write {path!r}: there is no folder {folder!r}; make it first"
            ) from error
        except IsADirectoryError as error:
            raise IsADirectoryError(f"[{who}] {path!r} is a folder: give the name of a file in it") from error
        self._whole = os.fstat(self._file.fileno()).st_size
        self._left: list[bytes] = []
        self._told = False

    def add(self, record: bytes) -> None:
        """Write a record, after those that are left from before."""
        self._left.append(record)
        error = self._write()
        if error is not None and not self._told:
            self._told = True
            _LOG.warning(
                "[%s] %s cannot be written now, because %s; what it has is whole, and the rest is tried again later",
                *(self._who, self.path, full_disk(error) or error.strerror or error),
            )

    def close(self, instead: str) -> None:
        """Close the file. ``instead`` says in the error where else the records are."""
        error = self._write()
        with suppress(OSError):
            self._file.close()
        if error is not None:
            why = full_disk(error) or error.strerror or error
            raise OSError(
                f"[{self._who}] {self.path} lacks the last {len(self._left)} records, because {why}; those before are whole"
                f"; {instead}"
            ) from error

    def _write(self) -> OSError | None:
        """Write what is left, record by record; returns the error that stopped it, if there was one."""
        try:
            while self._left:
                rest = memoryview(self._left[0])
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
                self._whole += len(self._left.pop(0))
        except OSError as error:
            with suppress(OSError):  # a pipe has no length
                self._file.truncate(self._whole)
                self._file.seek(self._whole)
            return error
        return None
