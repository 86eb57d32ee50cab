"""A file without a name that every rank of a world has open: rank 0 makes it, and sends its descriptor to the others."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from contextlib import closing, suppress
from typing import Any, Protocol

import numpy as np

from gradring.errors import GradringError
from gradring.launch.channel import CHALLENGE_BYTES, prove, receive, send, uid_of, welcome

__all__ = ["share_file"]

_NAME_BYTES, _KEY_BYTES = 16, 32
_PATIENCE = 1.0  # seconds that one connection may take to prove itself
_SLICE = 0.05


class _World(Protocol):
    """The methods of a communicator that this module uses."""

    rank: int
    size: int

    def broadcast(self, x: Any) -> Any: ...
    def barrier(self) -> Any: ...


def share_file(world: _World, timeout: float) -> int:
    """Make one empty file in memory, which is the same for every rank. All ranks call this; each owns its descriptor.

    A rank waits at most ``timeout`` seconds for another one. Rank 0 listens on an abstract socket, which leaves nothing
    behind, however the rank ends; the communicator carries the key and the socket's name.
    """
    secret = np.zeros(_NAME_BYTES + _KEY_BYTES, np.uint8)
    if world.rank != 0:
        world.broadcast(secret)
        fd = _fetch(_address(secret), secret[_NAME_BYTES:].tobytes(), timeout)
        world.barrier()
        return fd
    secret[:] = np.frombuffer(secrets.token_bytes(secret.size), np.uint8)
    fd = os.memfd_create("gradring-shared", os.MFD_CLOEXEC)
    over = threading.Event()
    try:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as listener:
            listener.bind(_address(secret))
            listener.listen(world.size + 64)
            listener.settimeout(_SLICE)
            server = threading.Thread(
                target=_serve, args=(listener, secret[_NAME_BYTES:].tobytes(), fd, over), daemon=True
            )
            server.start()
            try:
                world.broadcast(secret)
                world.barrier()  # if a rank has died, this raises
            finally:
                over.set()
                server.join()
    except BaseException:
        os.close(fd)
        raise
    return fd


def _address(secret: np.ndarray[Any, Any]) -> bytes:
    return b"\0gradring-file-" + secret[:_NAME_BYTES].tobytes().hex().encode()


def _serve(listener: socket.socket, key: bytes, fd: int, over: threading.Event) -> None:
    """Send the descriptor to processes of this user that know the key, until all ranks have it."""
    while not over.is_set():
        with suppress(OSError), closing(listener.accept()[0]) as link:
            if uid_of(link) != os.geteuid():
                continue
            link.settimeout(_PATIENCE)
            challenge = secrets.token_bytes(CHALLENGE_BYTES)
            send(link, challenge)
            proof = welcome(key, challenge, receive(link)[0])
            if proof is not None:
                send(link, proof)
                send(link, b"file", [fd])


def _fetch(address: bytes, key: bytes, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as link:
        try:
            link.settimeout(max(deadline - time.monotonic(), 0.001))
            link.connect(address)
            if uid_of(link) != os.geteuid():
                raise PermissionError("another user's process listens there")
            prove(link, key)
            _, descriptors = receive(link)
        except OSError as error:
            raise GradringError(f"[launch] rank 0 gave no shared file: {error}") from error
        if len(descriptors) != 1:
            raise GradringError("[launch] rank 0 gave no shared file: the connection ended")
        return descriptors[0].take()
