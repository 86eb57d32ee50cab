"""The hub, where the ranks of a world meet: it receives each rank's descriptors, and sends each rank those of all.

One thread serves it: the launcher's own, or, under a foreign launcher, a thread of rank 0 during a meeting. Nothing here
waits for a peer: a packet that cannot be sent stays in the peer's queue, and a peer that is silent before it has proved
that it knows the key is refused after a second.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from gradring.launch.channel import CHALLENGE_BYTES, Descriptor, receive, send, uid_of, welcome
from gradring.launch.ended import Ended
from gradring.launch.messages import MALFORMED, compose, parse

__all__ = ["Hub"]

_HANDSHAKE_SECONDS = 1.0
_MOST_STRANGERS = 64  # connections that have proved nothing yet
_HOW_SECONDS = 0.5  # how long the answer to `how` may wait until the process is reaped
_PEERS_PER_PACKET = 64


@dataclass
class _Peer:
    channel: socket.socket
    challenge: bytes
    deadline: float  # the time by which the handshake must be complete
    member: bool = False
    rank: int | None = None
    outbox: deque[tuple[bytes, list[Descriptor]]] = field(default_factory=deque)
    asked: list[tuple[int, float]] = field(default_factory=list)  # open questions `how`: rank, deadline of the answer


@dataclass
class _Meeting:
    joined: dict[int, tuple[_Peer, list[Descriptor]]] = field(default_factory=dict)


class Hub:
    """Serves the ranks of one generation. `ended(rank)` says how a rank ended, or None while it lives (or is unknown)."""

    def __init__(
        self,
        key: bytes,
        size: int,
        generation: int,
        *,
        listener: socket.socket | None = None,
        ended: Callable[[int], Ended | None] = lambda rank: None,
        uid: int | None = None,
    ) -> None:
        self._key, self.size, self.generation = key, size, generation
        self._listener, self._ended = listener, ended
        self._uid = os.geteuid() if uid is None else uid
        self._peers: dict[int, _Peer] = {}
        self._meetings: dict[int, _Meeting] = {}
        self._poll = select.poll()
        self.met = 0  # how many meetings all ranks have joined
        self.refused: list[str] = []  # why the latest messages or connections were refused
        if listener is not None:
            listener.setblocking(False)
            self._poll.register(listener, select.POLLIN)

    def adopt(self, channel: socket.socket) -> None:
        """Also serve this end of a channel; its other end begins with the handshake too."""
        channel.setblocking(False)
        challenge = secrets.token_bytes(CHALLENGE_BYTES)
        peer = _Peer(channel, challenge, time.monotonic() + _HANDSHAKE_SECONDS)
        try:
            if uid_of(channel) != self._uid:
                raise PermissionError("a process of another user")
            if self._listener is not None and sum(not p.member for p in self._peers.values()) >= _MOST_STRANGERS:
                raise PermissionError("too many connections that have proved nothing")
            send(channel, challenge)
        except OSError as error:
            self._note(str(error))
            channel.close()
            return
        if self._listener is None:
            peer.deadline = float("inf")  # an inherited channel has no deadline: an interpreter may start slowly
        self._peers[channel.fileno()] = peer
        self._poll.register(channel, select.POLLIN)

    def watch(self, fd: int) -> None:
        """Also return from :meth:`serve` early when this descriptor becomes readable."""
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Undo :meth:`watch`."""
        self._poll.unregister(fd)

    def serve(self, seconds: float) -> None:
        """Handle events for at most `seconds` seconds; returns early when it has handled one."""
        now = time.monotonic()
        waits = [p.deadline - now for p in self._peers.values() if not p.member and p.deadline != float("inf")]
        if any(peer.asked for peer in self._peers.values()):
            waits.append(0.005)
        for fd, events in self._poll.poll(max(min([seconds, *waits]), 0) * 1e3):
            if self._listener is not None and fd == self._listener.fileno():
                self._accept()
            elif fd in self._peers:
                self._hear(self._peers[fd], events)
        now = time.monotonic()
        for peer in list(self._peers.values()):
            self._answer(peer, now)
            if not peer.member and now > peer.deadline:
                self._drop(peer, "silent before it proved that it knows the key")
        self._tell_of_deaths()

    def close(self) -> None:
        """Closes all channels."""
        for peer in list(self._peers.values()):
            self._flush(peer)
            self._drop(peer)
        if self._listener is not None:
            self._poll.unregister(self._listener)
            self._listener.close()
            self._listener = None
        self._meetings.clear()

    @property
    def idle(self) -> bool:
        """Whether every message has been sent."""
        return not any(peer.outbox for peer in self._peers.values())

    def missing(self, number: int) -> list[int]:
        """The ranks that have not joined a meeting yet."""
        meeting = self._meetings.get(number)
        return [rank for rank in range(self.size) if meeting is None or rank not in meeting.joined]

    def _note(self, why: str) -> None:
        self.refused = [*self.refused[-15:], why]

    def _accept(self) -> None:
        assert self._listener is not None
        with suppress(BlockingIOError, ConnectionError):
            self.adopt(self._listener.accept()[0])

    def _drop(self, peer: _Peer, why: str | None = None) -> None:
        if why:
            self._note(why)
        fd = peer.channel.fileno()
        if self._peers.pop(fd, None) is None:
            return
        self._poll.unregister(fd)
        for meeting in self._meetings.values():
            for rank in [rank for rank, (other, _) in meeting.joined.items() if other is peer]:
                for descriptor in meeting.joined.pop(rank)[1]:
                    descriptor.close()
        peer.outbox.clear()
        peer.channel.close()

    def _hear(self, peer: _Peer, events: int) -> None:
        try:
            if peer.outbox:
                self._flush(peer)
            if not events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                return
            data, descriptors = receive(peer.channel)
            if not data:
                self._drop(peer)
            elif not peer.member:
                proof = welcome(self._key, peer.challenge, data)
                if proof is None:
                    self._drop(peer, "a wrong key")
                    return
                peer.member = True
                self._queue(peer, proof)
            else:
                self._obey(peer, data, descriptors)
        except BlockingIOError:
            pass
        except MALFORMED as error:
            self._drop(peer, f"malformed: {error}")
        except OSError as error:
            self._drop(peer, str(error))

    def _obey(self, peer: _Peer, data: bytes, descriptors: list[Descriptor]) -> None:
        message = parse(data)
        if message["say"] == "join":
            self._join(peer, message, descriptors)
        elif message["say"] == "how" and message["rank"] < self.size:
            peer.asked.append((message["rank"], time.monotonic() + _HOW_SECONDS))
        elif message["say"] == "who":
            missing = self.missing(message["meeting"])
            self._queue(peer, compose("missing", rank=missing[0] if missing else None, count=len(missing)))
        else:
            self._drop(peer, f"a rank has no {message['say']} to say")

    def _join(self, peer: _Peer, message: dict[str, int], descriptors: list[Descriptor]) -> None:
        rank, number = message["rank"], message["meeting"]
        meeting = self._meetings.setdefault(number, _Meeting())
        why = None
        if message["size"] != self.size:
            why = f"rank {rank} says that there are {message['size']} ranks, and there are {self.size}"
        elif message["generation"] != self.generation:
            why = f"rank {rank} is of generation {message['generation']}, and this is generation {self.generation}"
        elif rank >= self.size or (peer.rank is not None and peer.rank != rank):
            why = f"rank {rank} is not the rank of this process"
        elif rank in meeting.joined:
            why = f"rank {rank} has joined already; two processes say that they are it"
        else:
            why = _unfit(rank, descriptors)
        if why is not None:
            self._note(why)
            self._queue(peer, compose("refused", why=why))
            return
        peer.rank = rank
        meeting.joined[rank] = (peer, descriptors)
        if len(meeting.joined) == self.size:
            del self._meetings[number]
            self._tell(number, meeting)
            self.met += 1

    def _tell(self, number: int, meeting: _Meeting) -> None:
        segment = meeting.joined[0][1][2]
        world = compose("world", size=self.size, generation=self.generation, meeting=number)
        for peer, _ in meeting.joined.values():
            self._queue(peer, world, [segment])
            for first in range(0, self.size, _PEERS_PER_PACKET):
                ranks = range(first, min(first + _PEERS_PER_PACKET, self.size))
                brought = [descriptor for rank in ranks for descriptor in meeting.joined[rank][1][:2]]
                self._queue(peer, compose("peers", first=first, count=len(ranks)), brought)

    def _tell_of_deaths(self) -> None:
        for number, meeting in list(self._meetings.items()):
            for rank in range(self.size):
                ended = None if rank in meeting.joined else self._ended(rank)
                if ended is None:
                    continue
                for peer, _ in meeting.joined.values():
                    self._queue(peer, compose("ended", rank=rank, signal=ended.signal, code=ended.code))
                self._meetings.pop(number, None)

    def _answer(self, peer: _Peer, now: float) -> None:
        for rank, deadline in list(peer.asked):
            ended = self._ended(rank)
            if ended is None and now < deadline:
                continue
            ended = ended or Ended()
            peer.asked.remove((rank, deadline))
            self._queue(peer, compose("ended", rank=rank, signal=ended.signal, code=ended.code))

    def _queue(self, peer: _Peer, data: bytes, descriptors: list[Descriptor] | None = None) -> None:
        peer.outbox.append((data, descriptors or []))
        self._flush(peer)

    def _flush(self, peer: _Peer) -> None:
        try:
            while peer.outbox:
                data, descriptors = peer.outbox[0]
                send(peer.channel, data, [descriptor.fd for descriptor in descriptors])
                peer.outbox.popleft()
        except OSError as error:
            # The peer's queue, or the user's quota of descriptors in flight, is full: try again later.
            if error.errno not in (errno.EAGAIN, errno.ETOOMANYREFS):
                peer.outbox.clear()
        if peer.channel.fileno() in self._peers:
            self._poll.modify(peer.channel, select.POLLIN | (select.POLLOUT if peer.outbox else 0))


def _unfit(rank: int, descriptors: list[Descriptor]) -> str | None:
    """A text that says what is wrong with a rank's descriptors: a pidfd, its data segment, and from rank 0 the control
    segment."""
    names = [os.readlink(f"/proc/self/fd/{descriptor.fd}") for descriptor in descriptors]
    expected = 3 if rank == 0 else 2
    if len(names) != expected:
        return f"rank {rank} has brought {len(names)} descriptors; {expected} were expected"
    # The first name is that of older kernels; on newer ones pidfds have a file system of their own.
    if not (names[0].startswith("anon_inode:[pidfd]") or names[0].startswith("pidfd:")):
        return f"rank {rank} has brought {names[0]} in place of a pidfd"
    for name in names[1:]:
        if not name.startswith("/memfd:"):
            return f"rank {rank} has brought {name} in place of anonymous memory"
    return None
