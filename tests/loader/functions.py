"""Sources' functions for worker processes, which import them by name; loaders of them."""

import builtins
import os
import signal
import time
from pathlib import Path

import numpy as np

import gradring as gr


def in_processes(function, length=100, num_workers=2):
    return gr.sources.Callable(function, length, workers="processes", num_workers=num_workers)


def numbers(loader):
    """The sample numbers that a loader of Sample gives."""
    return [int(i) for _, y in loader for i in y]


class Sample:
    """(sample i as a (3, 2) block, i); does something else once it comes to `at`, the first time if `marker` is a path.

    One that hangs goes on when the event `until` is set: threads cannot be killed.
    """

    def __init__(self, mode="", at=50, marker=None, seconds=0.0, ballast=None, until=None):
        self.mode, self.at, self.marker, self.seconds, self.ballast = mode, at, marker, seconds, ballast
        self.until = until

    def __call__(self, i):
        if self.seconds:
            time.sleep(self.seconds)
        if i == self.at and self.first_time():
            self.act(i)
        return np.full((3, 2), i, np.float32), np.int64(i)

    def first_time(self):
        if self.marker is None:
            return True
        if Path(self.marker).exists():
            return False
        Path(self.marker).touch()
        return True

    def act(self, i):
        if self.mode == "raise":
            raise KeyError(f"sample {i} is bad")
        if self.mode == "stop iteration":
            raise StopIteration
        if self.mode == "unpicklable":
            raise Unpicklable(i, lambda: i)
        if self.mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "exit":
            os._exit(7)
        if self.mode == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.mode == "hang" and self.until:
            self.until.wait(60)
        elif self.mode == "hang":
            time.sleep(1000)


class Unpicklable(Exception):
    def __init__(self, number, function):
        super().__init__(f"number {number}")
        self.function = function


def draws(i):
    """NumPy's own random numbers, keyed by the sample as a careful user does."""
    return np.random.default_rng(i).standard_normal(4)


class Fails:
    """Cannot be unpickled."""

    def __reduce__(self):
        return fail, ()

    def __call__(self, i):
        return np.zeros(1)


def fail():
    raise ImportError("this worker lacks a library")


def global_draws(i):
    """What careless users write: NumPy's global generator."""
    return np.random.random(8)  # noqa: NPY002


class Meets:
    """Can be unpickled only while `count` processes try to at the same time."""

    def __init__(self, folder, count):
        self.folder, self.count = str(folder), count

    def __setstate__(self, state):
        self.__dict__.update(state)
        Path(self.folder, str(os.getpid())).touch()
        deadline = time.monotonic() + 60
        while len(os.listdir(self.folder)) < self.count:
            if time.monotonic() > deadline:
                raise TimeoutError("the other workers were not started meanwhile")
            time.sleep(0.01)

    def __call__(self, i):
        return np.int64(i)


class Looks:
    """Looks up Python objects, which counts references to them."""

    def __init__(self, objects):
        self.objects = objects

    def __call__(self, i):
        return np.int64(len({id(one): one for one in self.objects}))


class Rows(Sample):
    """(x[i], y[i]), with Sample's misdeeds; counts how often it was pickled."""

    pickled = 0

    def __init__(self, x, y, **options):
        super().__init__(**options)
        self.x, self.y = x, y

    def __getstate__(self):
        type(self).pickled += 1
        return self.__dict__

    def __call__(self, i):
        super().__call__(i)
        return self.x[i], self.y[i]


class InForm:
    """(x[i], y[i]) as a tuple or a dict of both, or x[i] alone."""

    def __init__(self, form, x, y):
        self.form, self.x, self.y = form, x, y

    def __call__(self, i):
        x, y = self.x[i], self.y[i]
        return {"tuple": (x, y), "dict": {"x": x, "y": y}, "array": x}[self.form]


class MyExit(BaseException):
    pass


class Raises:
    """An Exception at sample 33, which may be skipped, and another once at 57, which may not: neither when the whole
    batch is read nor when its samples are read one by one."""

    def __init__(self, name):
        self.name, self.times = name, 0

    def __call__(self, i):
        if int(i) == 33:
            raise ValueError("skip me")
        if int(i) == 57 and not self.times:
            self.times += 1
            raise getattr(builtins, self.name, MyExit)("sample 57 ends it all")
        return np.int64(i)


def drawn(i):
    """Numbers from the generators that all code shares. (NumPy keeps the second number of a pair of normal ones.)"""
    import random

    normal = np.random.randn()  # noqa: NPY002 (this is what users write)
    return np.array([i, np.random.rand(), normal, random.random(), random.gauss(0, 1)])  # noqa: NPY002


def drawn_from(i, rng):
    """Numbers from the generator of the sample."""
    return np.array([i, *rng.random(3), rng.standard_normal(dtype=np.float32)])


class Numbered:
    """A map-style data set of the rows from ``first`` on."""

    def __init__(self, count, first=0):
        self.count, self.first = count, first

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if not 0 <= i < self.count:
            raise IndexError(i)
        return np.full(3, self.first + i, np.float32), np.int64(self.first + i)
