"""The ranks of one generation: started together, watched, signalled, and ended together."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from gradring.launch.channel import Descriptor
from gradring.launch.cores import Cores
from gradring.launch.ended import Ended
from gradring.launch.hub import Hub
from gradring.launch.start import start_interpreter

__all__ = ["Job", "Note", "Program"]

_LARGEST_NOTE = 1 << 32


@dataclass(frozen=True)
class Program:
    """The work of every rank: a script or a module with arguments, or a function in a payload (see payload.py)."""

    arguments: Sequence[str] = ()
    module: bool = False
    payload_fd: int | None = None


@dataclass(frozen=True)
class Note:
    """The note that a rank leaves when it ends."""

    kind: str = ""  # "exception", "peer", "interrupt", "result", or nothing
    text: str = ""
    data: bytes = b""


@dataclass
class _Rank:
    popen: subprocess.Popen[bytes]
    pidfd: Descriptor
    note_file: Descriptor
    ended: Ended | None = None
    note: Note = Note()


class Job:
    """Starts the ranks; :meth:`serve` until :attr:`living` is empty; :meth:`close`."""

    def __init__(self, size: int, generation: int, program: Program, cores: Cores) -> None:
        self.size, self.generation = size, generation
        self._ranks: list[_Rank] = []
        self.order: list[int] = []  # ranks in the order in which they were found to have ended
        key = secrets.token_bytes(32)
        self.hub = Hub(key, size, generation, ended=self.end_of)
        key_file = Descriptor(os.memfd_create("gradring-key", os.MFD_CLOEXEC))
        os.pwrite(key_file.fd, key, 0)
        try:
            for rank in range(size):
                self._start(rank, program, cores, key_file)
        except BaseException:
            self.close()
            raise
        finally:
            key_file.close()

    def _start(self, rank: int, program: Program, cores: Cores, key_file: Descriptor) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        note_file = Descriptor(os.memfd_create("gradring-note", os.MFD_CLOEXEC))
        given = {
            "parent": os.getpid(),
            "rank": rank,
            "size": self.size,
            "generation": self.generation,
            "cores": cores.of(rank),
            "module": program.module,
            "payload_fd": program.payload_fd,
            "key_fd": key_file.fd,
            "note_fd": note_file.fd,
            "link_fd": theirs.fileno(),
        }
        # Standard input goes to rank 0 if it is a pipe. A terminal would stop a process that is not in its foreground.
        stdin = None if rank == 0 and program.payload_fd is None and not _stdin_is_a_terminal() else subprocess.DEVNULL
        with theirs:
            popen = start_interpreter(
                "gradring.launch.rank", given, arguments=program.arguments, threads=cores.threads, stdin=stdin
            )
        # The child is not reaped yet, so the number still belongs to it.
        process = _Rank(popen, Descriptor(os.pidfd_open(popen.pid)), note_file)
        self._ranks.append(process)
        self.hub.adopt(ours)
        self.hub.watch(process.pidfd.fd)

    @property
    def living(self) -> list[int]:
        """The ranks that have not ended."""
        return [rank for rank, process in enumerate(self._ranks) if process.ended is None]

    def end_of(self, rank: int) -> Ended | None:
        """How that rank ended; None while it lives."""
        return self._ranks[rank].ended if rank < len(self._ranks) else None

    def note_of(self, rank: int) -> Note:
        """The note of that rank."""
        return self._ranks[rank].note

    def pid_of(self, rank: int) -> int:
        """The number of its process."""
        return self._ranks[rank].popen.pid

    def serve(self, seconds: float) -> None:
        """Serve the ranks' meetings, and notice ranks that have ended, for at most `seconds` seconds."""
        self.hub.serve(seconds)
        for rank, process in enumerate(self._ranks):
            if process.ended is None and process.popen.poll() is not None:
                process.ended = Ended.from_wait(process.popen.returncode)
                process.note = _read_note(process.note_file.fd)
                self.order.append(rank)
                self.hub.unwatch(process.pidfd.fd)
                process.pidfd.close()
                process.note_file.close()

    def signal(self, number: int) -> None:
        """Sends a signal to the ranks that live; SIGKILL goes to their process groups."""
        for rank in self.living:
            process = self._ranks[rank]
            if number == signal.SIGKILL:
                # The child is not reaped yet, so the number of its group is still valid.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.popen.pid, number)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process.pidfd.fd, number)

    def close(self) -> None:
        """Kill the ranks that live, reap all, and close all descriptors."""
        self.signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while self.living and time.monotonic() < deadline:
            self.serve(0.05)
        self.hub.close()
        for process in self._ranks:
            process.pidfd.close()
            process.note_file.close()


def _stdin_is_a_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return True


def _read_note(fd: int) -> Note:
    try:
        size = os.fstat(fd).st_size
        if not 0 < size <= _LARGEST_NOTE:
            return Note()
        data = bytearray()
        while len(data) < size and (part := os.pread(fd, size - len(data), len(data))):
            data += part
        head, _, rest = bytes(data).partition(b"\n")
        found = json.loads(head)
        return Note(str(found["kind"]), str(found["text"]), rest)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        print(f"gradring: a rank left a note that cannot be read: {error}", file=sys.stderr)
        return Note()
