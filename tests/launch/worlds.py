"""Worlds in threads of one process, and what they bring when there is nothing but the meeting to be tested."""

import os
import socket
import threading
import time

from gradring.launch.channel import Descriptor, wait_for_welcome
from gradring.launch.hub import Hub
from gradring.launch.world import meet, own_pidfd

KEY = b"k" * 32


def bring(rank):
    """A pidfd and memory, as a rank brings it."""
    kinds = ["data"] if rank else ["data", "control"]
    return [own_pidfd(), *(Descriptor(os.memfd_create(f"{kind} of {rank}", os.MFD_CLOEXEC)) for kind in kinds)]


class Served:
    """A hub with a thread that serves it."""

    def __init__(self, size, **options):
        self.hub = Hub(KEY, size, options.pop("generation", 0), **options)
        self._ended = threading.Event()
        self._links = []
        self._thread = threading.Thread(target=self._serve)

    def _serve(self):
        while not self._ended.is_set():
            self.hub.serve(0.01)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self.hub.close()
        for link in self._links:
            link.close()

    def link(self):
        """An inherited channel: our end of it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.hub.adopt(theirs)
        self._links.append(ours)
        return ours


def join(link, rank, size, generation=0, meeting=0, seconds=5.0, brought=None, key=KEY):
    """Join and return the world."""
    brought = bring(rank) if brought is None else brought
    deadline = time.monotonic() + seconds
    wait_for_welcome(link, key, deadline)
    lock = threading.Lock()
    return meet(link, rank, size, generation, meeting, [d.fd for d in brought], deadline, lock=lock)


def in_threads(*functions):
    """Run functions in threads, and return their results, or the exceptions that they raised, in order."""
    results = [None] * len(functions)

    def call(i):
        try:
            results[i] = functions[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results
