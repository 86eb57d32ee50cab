"""An owner-only folder, in which the ranks of a foreign launcher find each other: a key, a socket, and a lock for both."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradring.errors import GradringError
from gradring.launch.environment import Hints

__all__ = ["MeetingPlace", "owner_only_folder"]

_KEY_BYTES = 32
_PROBE_SECONDS = 1.0  # for a connection to a process that listens, but is too busy or stopped
_LOCK_SECONDS = 10.0  # the lock is held for milliseconds
_LONGEST = 40  # bytes of a folder; with the names within, a socket's path has at most 107


def owner_only_folder() -> Path:
    """A folder that no other user can enter. A missing one is made; one that others can enter is refused."""
    folder = Path(f"/tmp/gradring-{os.geteuid()}")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if 0 < len(os.fsencode(runtime)) <= _LONGEST and _is_owner_only(Path(runtime)):
        folder = Path(runtime) / "gradring"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_owner_only(folder):
        raise PermissionError(
            f"[init] {folder} is not a folder of user {os.geteuid()} alone (mode 0700): remove it, or set XDG_RUNTIME_DIR "
            f"to a folder that is"
        )
    return folder


def _is_owner_only(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


class MeetingPlace:
    """The files of one meeting, named after the launcher's job, its port and the number of the meeting."""

    def __init__(self, hints: Hints, meeting: int) -> None:
        self._hints = hints
        text = f"{hints.job}\n{hints.port}\n{hints.size}\n{meeting}"
        name = f"{hints.launcher.split()[0].lower()}-{hints.port}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        base = owner_only_folder() / name
        self._key, self._socket, self._lock = (f"{base}.{kind}" for kind in ("key", "sock", "lock"))

    def open(self) -> tuple[bytes, socket.socket]:
        """For rank 0: make a new key and a socket that listens. They replace what an earlier job left."""
        with self._locked():
            self._refuse_a_taken_place()
            for path in (self._key, self._socket):
                with suppress(FileNotFoundError):
                    os.unlink(path)
            key = secrets.token_bytes(_KEY_BYTES)
            fd = os.open(self._key, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(key)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                listener.bind(self._socket)
                os.chmod(self._socket, 0o600)  # before any process can connect
                listener.listen(self._hints.size + 64)
            except BaseException:
                listener.close()
                raise
            return key, listener

    def connect(self) -> tuple[bytes, socket.socket] | None:
        """For the other ranks: the key and a connection, or None as long as rank 0 does not listen yet."""
        try:
            key = self._read_key()
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except FileNotFoundError:
            return None
        try:
            link.connect(self._socket)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            link.close()
            return None
        except BaseException:
            link.close()
            raise
        return key, link

    def remove(self) -> None:
        """For rank 0, at the end, while it still listens: remove all files. A job that comes to this place earlier finds it
        taken; a job that comes later makes its own files, which this job no longer touches."""
        with self._locked():
            for path in (self._key, self._socket, self._lock):
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def _read_key(self) -> bytes:
        fd = os.open(self._key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise PermissionError(f"[init] {self._key} is not a file of user {os.geteuid()} alone (mode 0600)")
            return file.read(_KEY_BYTES + 1)

    def _refuse_a_taken_place(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.settimeout(_PROBE_SECONDS)
            try:
                probe.connect(self._socket)
            except (FileNotFoundError, ConnectionRefusedError):
                return  # no process listens there any more
            except (BlockingIOError, TimeoutError):
                pass  # a process listens, and has not accepted earlier connections
        raise GradringError(
            f"[init] another job meets at {self._socket}: "
            + (
                f"MASTER_PORT {self._hints.port} is taken; give each job its own"
                if self._hints.port
                else "is it yours?"
            )
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                self._lock_file(fd, deadline)
                # The process that held the lock before may have removed the file: the lock then protects nothing, so
                # try again.
                if os.path.exists(self._lock) and os.path.samestat(os.fstat(fd), os.stat(self._lock)):
                    yield
                    return
            finally:
                os.close(fd)

    def _lock_file(self, fd: int, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise GradringError(
                        f"[init] another process has held the lock {self._lock} for {_LOCK_SECONDS:g} s: end that process "
                        f"(`fuser {self._lock}` names it)"
                    ) from None
                time.sleep(0.005)
