"""Models, processes and sources that several tests use."""

import os
import signal
import subprocess
import sys
import textwrap
import warnings
from itertools import pairwise

import numpy as np

import gradring as gr


class Stop(Exception):
    """What ends a run in a test."""


def heed_signals():
    """In a child: as from a terminal, and not as under nohup or in the background of a shell, where signals are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class Batches:
    """A loader as any other iterable."""

    def __init__(self, loader):
        self.loader = loader

    def set_epoch(self, epoch):
        self.loader.set_epoch(epoch)

    def __iter__(self):
        return self.loader.batches()

    def __len__(self):
        return len(self.loader)


def mlp(*sizes, activation="ReLU"):
    """Linear layers of these sizes with an activation between them."""
    layers = []
    for i, o in pairwise(sizes):
        layers += [gr.nn.Linear(i, o), getattr(gr.nn, activation)()]
    return gr.nn.Sequential(*layers[:-1])


def exit_of_child(body):
    """The exit status of a forked child: the number that `body` returns there, 1 if it raises, -14 if it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's own, of threads and fork, and JAX's where it is imported
        pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        code = 1
        try:
            code = body()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_script(script, *arguments, seconds=100, **environment):
    """A Python process of its own, as it may crash or hang, and has nothing of what the tests imported."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, check=False)


def snapshot(trainer):
    """Every bit that training changes, by name."""
    state = trainer.state_dict()
    arrays = {**state.pop("params"), **{f"optimizer/{name}": array for name, array in state.pop("optimizer").items()}}
    for part in ("gradients", "measured"):
        arrays |= {f"{part}/{name}": array for name, array in state.pop(part, {}).items()}
    return {name: array.tobytes() for name, array in arrays.items()} | state


class Rows:
    """Samples of arrays, as worker processes make them. (Processes import this module by its name, and no module of tests.)"""

    def __init__(self, *arrays):
        self.arrays = arrays

    def __call__(self, index):
        return tuple(array[index] for array in self.arrays)


class Lazy:
    """Opens its file at the first sample, as one does with HDF5."""

    def __init__(self, path):
        self.path, self.file = path, None

    def __call__(self, i):
        if self.file is None:
            self.file = open(self.path, "rb")  # noqa: SIM115
        self.file.seek(i)
        return np.frombuffer(self.file.read(1), np.uint8)
