"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

__all__ = [
    "as_path",
    "check_replaceable",
    "full_disk",
    "reading",
    "remove_leftovers",
    "replacing",
    "require_place",
    "require_readable",
]

_LONGEST_NAME = 200  # characters of the target's name within the temporary one: file systems allow 255 bytes


_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the file would be larger than the limit (ulimit -f)",
    errno.EIO: "the disk reports an error",
}


def full_disk(error: BaseException) -> str:
    """What keeps a file from being written, in words, if it may go away without a change of the program; else an empty text.

    >>> full_disk(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full'
    """
    return _NO_ROOM.get(error.errno or 0, "") if isinstance(error, OSError) else ""


@contextmanager
def reading(where: str, path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a regular file to read it. The ``OSError`` for a path that cannot be read says what is there instead."""
    name = as_path(where, path)
    try:
        if not stat.S_ISREG(mode := os.stat(name).st_mode) and not stat.S_ISDIR(mode):
            raise OSError(f"[{where}] {name!r} is {_kind(mode)}: only regular files can be read")
        file = open(name, "rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        if error.errno is None:
            raise
        raise _unreadable(where, name, error) from error
    with file:
        yield file


def require_readable(where: str, path: str | os.PathLike[str]) -> None:
    """Raise the ``OSError`` of ``reading`` for a path that cannot be read."""
    with reading(where, path):
        pass


def _unreadable(where: str, name: str, error: OSError) -> OSError:
    """The error for a path that cannot be opened, of the same type and number."""
    if isinstance(error, FileNotFoundError):
        folder = os.path.dirname(os.path.abspath(name))
        what = f"there is no file {name!r}" + ("" if os.path.isdir(folder) else f", and no folder {folder!r}")
    elif isinstance(error, IsADirectoryError):
        what = f"{name!r} is a folder: give the name of a file in it"
    else:
        what = f"{name!r} cannot be read: {error.strerror or error}"
    return _numbered(type(error), f"[{where}] {what}", error.errno)


def _numbered(kind: type[OSError], text: str, number: int | None) -> OSError:
    """An error with a text of its own that keeps the system's number."""
    error = kind(text)
    error.errno = number
    return error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a new file beside ``path``, which replaces ``path`` when the block ends; after an error ``path`` is as it
    was. The error of a full disk says so.

    The file is on the disk before it gets its name, and the name before this returns, so that a crash at any moment
    leaves either the old file or the new one. A device, a named pipe, a socket or a folder at ``path`` raises
    ``OSError``: only regular files are replaced.
    """
    path = as_path("save", path)
    check_replaceable(path)
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"cannot write {os.fspath(path)!r}: there is no folder {folder!r}; make it first")
    remove_leftovers(target)
    try:
        temporary, file = _open_temporary(target)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                check_replaceable(target)
                os.replace(temporary, target)  # while the lock shows that the file has an owner
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        why = full_disk(error)
        if not why or error.strerror is None:  # the latter has a text of this package
            raise
        kept = "the file that was there is unchanged" if os.path.exists(target) else "nothing was written"
        raise _numbered(OSError, f"[save] {os.fspath(path)} was not written: {why}; {kept}", error.errno) from error
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        text = (
            f"[save] {os.fspath(path)} is written, but its folder cannot be flushed to the disk ({error.strerror or error}): "
            "after a power failure the folder may name the older file again"
        )
        raise _numbered(OSError, text, error.errno) from error
    finally:
        os.close(handle)


def as_path(where: str, path: Any) -> str:
    """A path as a text; ``TypeError`` for numbers, which the system would take as open files, and for other objects.

    >>> as_path("save", b"model.safetensors")
    'model.safetensors'
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"[{where}] path must be a text or a pathlib.Path, got {type(path).__name__}")
    return os.fsdecode(path)


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raise ``OSError`` if ``path`` exists and is no regular file."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"[save] {os.fspath(path)} is a folder: give the name of a file in it")
    if not stat.S_ISREG(mode):
        raise OSError(
            f"[save] {os.fspath(path)} is {_kind(mode)}: only a regular file can be replaced; give another name"
        )


def require_place(who: str, path: str) -> None:
    """Raise ``OSError`` now if no file can be written at ``path`` later. A full disk is not such an error, because it may have
    room by then."""
    import tempfile

    check_replaceable(path)
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.lexists(folder):
        raise _numbered(
            FileNotFoundError, f"[{who}] cannot write {path!r}: there is no folder {folder!r}; make it first", errno.ENOENT
        )
    try:
        # A file without a name, which root too can make only where files can be written.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if full_disk(error):
            return
        why = f": {error.strerror}" if os.path.isdir(folder) and error.strerror else ""
        raise _numbered(OSError, f"[{who}] {folder} is not a folder that can be written{why}", error.errno) from error


def _kind(mode: int) -> str:
    return {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(mode), "a device")


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the files that processes left beside ``path`` when they were killed while writing it.

    A writer holds a lock on its file, which the system releases when the writer ends, however it ends.
    """
    target = os.path.realpath(os.fsdecode(path))
    folder, name = os.path.split(target)
    pattern = re.compile(re.escape(f".{name[:_LONGEST_NAME]}.") + r"\d+\.[0-9a-f]{8}")
    try:
        left = [entry for entry in os.listdir(folder) if pattern.fullmatch(entry)]
    except OSError:
        return  # An error here would hide the one that the caller gets when it opens the file.
    for entry in left:
        with suppress(OSError):
            _remove_if_unlocked(os.path.join(folder, entry))


def _remove_if_unlocked(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                os.unlink(path)
    finally:
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """Whether the path is still the name of the open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _open_temporary(target: str) -> tuple[str, IO[bytes]]:
    """A new, locked file beside the target."""
    folder, name = os.path.split(target)
    while True:
        # Do not use tempfile, which makes private files: this file must get the permissions of an ordinary one.
        temporary = os.path.join(folder, f".{name[:_LONGEST_NAME]}.{os.getpid()}.{os.urandom(4).hex()}")
        file = open(temporary, "xb")  # noqa: SIM115 (the caller closes it)
        with suppress(OSError):  # Where locks do not work, no process removes leftovers, so the file is safe.
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        # Another process may have removed the file as a leftover before it was locked.
        if _is_at(file.fileno(), temporary):
            return temporary, file
        file.close()
