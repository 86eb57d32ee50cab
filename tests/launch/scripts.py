"""Scripts as ranks, which need no collective: they meet, and then do what is to be tested."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from helpers import heed_signals

MEET = """
import os, signal, select, sys, time
import gradring.launch.meeting as meeting
from gradring.launch.channel import Descriptor
from gradring.launch.world import own_pidfd

def bring(rank, size):
    return [own_pidfd(), *(Descriptor(os.memfd_create("m")) for _ in range(1 if rank else 2))]

meeting._bring = bring

def meet(seconds=30.0):
    return meeting.rendezvous(seconds)

def wait_for(world, rank):
    select.select([world.pidfds[rank]], [], [])
    return world.end_of(rank)

def say(text):
    os.write(1, (text + "\\n").encode())
"""


def write(folder, body, name="script.py"):
    """Write a script, and return its path."""
    path = Path(folder) / name
    path.write_text(MEET + textwrap.dedent(body))
    return path


def command(*arguments):
    """Of `gradring run` with these arguments."""
    return [sys.executable, "-m", "gradring", "run", *map(str, arguments)]


def run(*arguments, seconds=100, **options):
    """It, to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=seconds, check=False, **options)


@contextlib.contextmanager
def started(*arguments, **options):
    """It, while it runs."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
        **options,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def lines(process, count):
    """The next lines of its output, sorted."""
    return sorted(process.stdout.readline().strip() for _ in range(count))
