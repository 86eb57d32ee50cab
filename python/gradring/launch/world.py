"""What a rank knows about its world after all ranks have met."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from gradring.errors import GradringError, PeerDied, PeerStalled
from gradring.launch import channel
from gradring.launch.channel import Descriptor
from gradring.launch.ended import Ended, end_of_pidfd
from gradring.launch.messages import MALFORMED, compose

__all__ = ["World", "meet"]

_HOW_SECONDS = 0.7  # how long to wait for the launcher's answer


@dataclass
class World:
    """A rank's number, and what it needs to reach the other ranks. Descriptors are open as long as this object lives."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    generation: int
    segment_fd: int
    pidfds: list[int]
    data_fds: list[int]
    launcher: socket.socket | None = None  # the channel to gradring's launcher, which knows how ranks ended
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)  # guards that channel

    def close(self) -> None:
        """Close the descriptors. Those who have attached to them have duplicates."""
        numbers, self.segment_fd, self.pidfds, self.data_fds = (
            [self.segment_fd, *self.pidfds, *self.data_fds],
            -1,
            [],
            [],
        )
        for number in numbers:
            if number >= 0:
                os.close(number)

    def __del__(self) -> None:
        with suppress(OSError):
            self.close()

    def end_of(self, rank: int) -> Ended:
        """How a rank has ended, as far as the launcher or the kernel knows."""
        if self.launcher is not None:
            ended = self._ask(self.launcher, rank)
            if ended is not None:
                return ended
        return end_of_pidfd(self.pidfds[rank]) if self.pidfds else Ended()

    def _ask(self, launcher: socket.socket, rank: int) -> Ended | None:
        if not self.lock.acquire(timeout=_HOW_SECONDS):
            return None  # another thread uses the channel for a meeting
        try:
            # If the launcher does not answer, the kernel may still know.
            with suppress(OSError, *MALFORMED):
                launcher.settimeout(_HOW_SECONDS)
                message, _ = channel.ask(launcher, compose("how", rank=rank))
                if message["say"] == "ended" and message["rank"] == rank:
                    return Ended(message["signal"], message["code"])
            return None
        finally:
            self.lock.release()

    def signal_of(self, rank: int) -> int | None:
        """The number of the signal that killed a rank; None if none did, or if it is unknown."""
        return self.end_of(rank).signal


def meet(
    link: socket.socket,
    rank: int,
    size: int,
    generation: int,
    meeting: int,
    brought: Sequence[int],
    deadline: float,
    *,
    lock: threading.Lock | None = None,
) -> World:
    """Join a meeting over a channel after its handshake. `brought` has this rank's pidfd, data segment and, for rank 0,
    control segment.

    With `lock`, which guards the channel, the world can later ask over it how ranks ended.
    """

    def next_message() -> tuple[dict[str, Any], list[Descriptor]]:
        link.settimeout(max(deadline - time.monotonic(), 0.001))
        return channel.next_message(link)

    begin = time.monotonic()
    try:
        link.settimeout(max(deadline - begin, 0.001))
        channel.send(
            link, compose("join", version=1, rank=rank, size=size, generation=generation, meeting=meeting), brought
        )
        message, received = next_message()
        if message["say"] == "refused":
            raise GradringError(f"[init] {message['why']}")
        if message["say"] == "ended":
            raise _died(message["rank"], Ended(message["signal"], message["code"]))
        if message["say"] != "world" or len(received) != 1:
            raise GradringError("[init] this version of gradring does not understand the launcher's message")
        segment, peers = received[0], [Descriptor(-1)] * (2 * size)
        while any(descriptor.fd < 0 for descriptor in peers):
            message, received = next_message()
            first, count = message.get("first", -1), message.get("count", -1)
            if message["say"] != "peers" or first + count > size or len(received) != 2 * count:
                raise GradringError("[init] this version of gradring does not understand the launcher's message")
            peers[2 * first : 2 * (first + count)] = received
    except TimeoutError as error:
        seconds = time.monotonic() - begin
        raise PeerStalled(f"[init] {_missing(link, meeting, size)} within {seconds:.1f} s (timeout)") from error
    except ConnectionError as error:
        raise PeerDied("[init] the process in which the ranks meet has ended") from error
    return World(
        rank,
        size,
        rank,
        size,
        generation,
        segment.take(),
        [descriptor.take() for descriptor in peers[0::2]],
        [descriptor.take() for descriptor in peers[1::2]],
        link if lock is not None else None,
        lock or threading.Lock(),
    )


def _missing(link: socket.socket, meeting: int, size: int) -> str:
    with suppress(OSError, *MALFORMED):
        link.settimeout(_HOW_SECONDS)
        message, _ = channel.ask(link, compose("who", meeting=meeting))
        if message["say"] == "missing" and message["rank"] is not None:
            others = message["count"] - 1
            if others <= 0:
                return f"rank {message['rank']} of {size} has not joined"
            more = "1 other rank" if others == 1 else f"{others} other ranks"
            return f"rank {message['rank']} of {size} and {more} have not joined"
    return f"not all of {size} ranks have joined"


def _died(rank: int, ended: Ended) -> PeerDied:
    error = PeerDied(f"[init] rank {rank} {ended} before it joined")
    vars(error).update(rank=rank, signal=ended.signal, op="init")
    return error


def own_pidfd() -> Descriptor:
    """A descriptor of this process itself."""
    return Descriptor(os.pidfd_open(os.getpid()))
