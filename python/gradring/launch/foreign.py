"""Meeting under a foreign launcher: rank 0 listens in an owner-only folder and the others connect, which proves that
they share a host."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from gradring.errors import NotBuilt, PeerStalled
from gradring.launch.channel import wait_for_welcome
from gradring.launch.environment import Hints
from gradring.launch.hub import Hub
from gradring.launch.place import MeetingPlace
from gradring.launch.world import World, meet

__all__ = ["meet_under"]

_SLICE = 0.02  # seconds between two attempts to connect
# How many seconds a rank tries to reach rank 0 if its launcher's variables name several hosts.
_OTHER_HOST_SECONDS = 20.0

_meetings: dict[str, int] = {}


def meet_under(hints: Hints, brought: Sequence[int], timeout: float) -> World:
    """Meet the world that these hints describe. If it spans several hosts, an error says so."""
    why = hints.elsewhere()
    if why is not None:
        raise _spans_hosts(hints, why)
    deadline = time.monotonic() + timeout
    number = _meetings.get(hints.job, 0)
    _meetings[hints.job] = number + 1
    place = MeetingPlace(hints, number)
    if hints.rank != 0:
        return _join(hints, place, number, brought, deadline, timeout)
    key, listener = place.open()
    hub = Hub(key, hints.size, hints.generation, listener=listener)
    ended = threading.Event()

    def serve() -> None:
        try:
            while not (ended.is_set() or (hub.met and hub.idle)):
                hub.serve(_SLICE)
        finally:
            try:
                place.remove()  # while the socket listens: see there
            finally:
                hub.close()

    thread = threading.Thread(target=serve, name="gradring-meeting", daemon=True)
    thread.start()
    try:
        world = _join(hints, place, number, brought, deadline, timeout)
        # Other ranks may not have read their messages yet.
        thread.join(max(deadline - time.monotonic(), _SLICE))
        return world
    finally:
        ended.set()
        thread.join()


def _join(
    hints: Hints, place: MeetingPlace, number: int, brought: Sequence[int], deadline: float, timeout: float
) -> World:
    several = hints.local_size is not None and hints.local_size < hints.size
    patience = min(deadline, time.monotonic() + _OTHER_HOST_SECONDS) if several else deadline
    while True:
        connected = place.connect()
        if connected is not None:
            key, link = connected
            with link:
                try:
                    wait_for_welcome(link, key, deadline)
                except (ConnectionError, PermissionError, TimeoutError):
                    pass  # an earlier job left it: rank 0 of this job replaces it
                else:
                    if several:
                        deadline = patience
                    try:
                        return meet(link, hints.rank, hints.size, hints.generation, number, brought, deadline)
                    except PeerStalled as error:
                        if several:
                            raise _spans_hosts(hints, str(error)) from error
                        raise
        if time.monotonic() > patience:
            if several:
                raise _spans_hosts(hints, "rank 0 cannot be reached on this host")
            raise PeerStalled(
                f"[init] rank 0 of {hints.size} has not come to the meeting within {timeout:.1f} s (timeout); "
                f"{hints.launcher}'s variables ({hints.variables}) say that this is rank {hints.rank}"
            )
        time.sleep(_SLICE)


def _spans_hosts(hints: Hints, why: str) -> NotBuilt:
    local = f", {hints.local_size} of them on this host" if hints.local_size is not None else ""
    return NotBuilt(
        f"[init] {hints.launcher}'s variables describe a world of {hints.size} ranks{local}, which spans hosts ({why}): "
        f"this version of gradring works on one host; start all ranks there, for example with "
        f"`gradring run -n {hints.size}`"
    )
