"""A control channel: packets and descriptors over a Unix socket, after both ends have proved that they know the key.

The handshake is a mutual challenge and response with HMAC-SHA256; different labels ensure that one side's proof cannot
be used by the other side. Everything else that a peer sends is read only after its proof was right.
"""

from __future__ import annotations

import array
import contextlib
import hmac
import os
import secrets
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from gradring.launch.messages import LIMIT, Malformed, parse

__all__ = ["CHALLENGE_BYTES", "Descriptor", "prove", "receive", "send", "uid_of", "wait_for_welcome", "welcome"]

CHALLENGE_BYTES = 32
_PROOF_BYTES = 32
_MOST_DESCRIPTORS = 200  # per packet; the kernel's own bound is 253
_CREDENTIALS = struct.Struct("3i")


class Descriptor:
    """Owns a file descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def take(self) -> int:
        """Give the descriptor's number to the caller, who owns it from now on."""
        fd, self.fd = self.fd, -1
        return fd

    def close(self) -> None:
        """Close it. Closing again does nothing."""
        if self.fd >= 0:
            os.close(self.take())

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()


def uid_of(channel: socket.socket) -> int:
    """The user of the process at the other end, as the kernel tells it."""
    data = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


def send(channel: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one packet."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> tuple[bytes, list[Descriptor]]:
    """Receive one packet and its descriptors; b"" when the other end has closed."""
    space = socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4)
    data, ancillary, flags, _ = channel.recvmsg(LIMIT + 1, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) // 4 * 4])
            descriptors += [Descriptor(fd) for fd in numbers]
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise Malformed("a packet that is too large")
    return data, descriptors


def ask(
    channel: socket.socket, data: bytes, descriptors: Sequence[int] = ()
) -> tuple[dict[str, Any], list[Descriptor]]:
    """Send a packet and return the next message."""
    send(channel, data, descriptors)
    return next_message(channel)


def next_message(channel: socket.socket) -> tuple[dict[str, Any], list[Descriptor]]:
    """The next message with its descriptors. Raises `ConnectionError` when no more can come."""
    data, descriptors = receive(channel)
    if not data:
        raise ConnectionResetError("the control channel was closed")
    return parse(data), descriptors


def _mac(key: bytes, label: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, label + b"".join(parts), "sha256")


def prove(channel: socket.socket, key: bytes) -> None:
    """The rank's half of the handshake; raises `PermissionError` if the other end does not know the key."""
    challenge, _ = receive(channel)
    if len(challenge) != CHALLENGE_BYTES:
        raise ConnectionResetError("no challenge came")
    own = secrets.token_bytes(CHALLENGE_BYTES)
    send(channel, own + _mac(key, b"rank", challenge, own))
    proof, _ = receive(channel)
    if not proof:
        raise PermissionError("the other end refused this key")
    if not hmac.compare_digest(proof, _mac(key, b"hub", own, challenge)):
        raise PermissionError("the other end does not know the key")


def welcome(key: bytes, challenge: bytes, answer: bytes) -> bytes | None:
    """The hub's half of the handshake: its own proof if the answer to its challenge is right, else None."""
    if len(answer) != CHALLENGE_BYTES + _PROOF_BYTES:
        return None
    own, proof = answer[:CHALLENGE_BYTES], answer[CHALLENGE_BYTES:]
    if not hmac.compare_digest(proof, _mac(key, b"rank", challenge, own)):
        return None
    return _mac(key, b"hub", own, challenge)


def wait_for_welcome(channel: socket.socket, key: bytes, deadline: float) -> None:
    """Call :func:`prove` with a deadline (of `time.monotonic`)."""
    channel.settimeout(max(deadline - time.monotonic(), 0.001))
    prove(channel, key)
