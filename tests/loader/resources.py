"""The threads, descriptors and memory of a process."""

import os
import time
from pathlib import Path


def threads():
    """The threads of this process. Compare with ``<=``: threads of earlier tests may end meanwhile."""
    return frozenset(os.listdir("/proc/self/task"))


def descriptors():
    """What this process has open: each descriptor with the file behind it. Compare with ``<=``: garbage of earlier
    tests may be collected, and close its descriptors, at any time."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            link, status = os.readlink(f"/proc/self/fd/{number}"), os.stat(int(number))
        except OSError:
            continue  # the listing's own descriptor
        found.add((number, link, status.st_dev, status.st_ino))
    return frozenset(found)


def shared_names():
    """The names of shared memory on this machine; but not of semaphores, which other programs' multiprocessing makes and
    removes there at any time. gradring makes no semaphore."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")}


def resident_bytes(pid="self"):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children():
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def is_dead(pid):
    """Whether the process is a zombie or does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition, seconds=20.0):
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
