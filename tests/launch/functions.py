"""Functions that fresh processes import."""

import os
import signal
import threading
import time

import numpy as np


def double(value):
    """Twice the value, with the number of this rank."""
    return _rank(), value * 2


def _rank():
    from gradring.launch.inherited import inherited

    return inherited().rank


def meet():
    """The sizes of the worlds of two meetings."""
    from .scripts import MEET

    space = {}
    exec(MEET, space)
    worlds = [space["meet"](), space["meet"]()]
    return [(world.rank, world.size) for world in worlds]


class Unpicklable(Exception):
    """Knows a lock, so that it stays where it is."""

    def __init__(self):
        super().__init__("not to be moved")
        self.lock = threading.Lock()


def fail(at, how):
    """Rank `at` fails in some way; the others would go on for ever."""
    if _rank() != at:
        time.sleep(1000)
    if how == "raise":
        raise KeyError("a lost key")
    if how == "unpicklable":
        raise Unpicklable
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        raise SystemExit(4)
    if how == "leave":
        os._exit(0)


def sums(array):
    """Of an array that came along."""
    return float(array.sum())


def affinity():
    """The processors of this rank."""
    return sorted(os.sched_getaffinity(0))


def large():
    """A result of some megabytes."""
    return np.full(1_000_000, _rank(), np.float32)
