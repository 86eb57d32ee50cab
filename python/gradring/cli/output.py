"""Prints the output of the command."""

from __future__ import annotations

import os
import select
import sys
from typing import TextIO

__all__ = ["say", "settle"]


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line. It is no error if the reader has ended or the disk is full, because the work is done and saved."""
    target = sys.stdout if file is None else file
    try:
        print(text, file=target, flush=True)
    except (OSError, ValueError):
        _drop(target)


def settle() -> None:
    """Flush what was printed. If its reader has ended, Python's own flush at exit must not fail, because the exit
    status would then be 120 in spite of success."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
            if _has_no_reader(stream.fileno()):
                _drop(stream)
        except (OSError, ValueError):
            _drop(stream)
        except AttributeError:  # None: the process has no such stream
            continue


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _drop(stream: TextIO) -> None:
    """Discard what is printed from now on."""
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)
    except (OSError, ValueError):
        pass
