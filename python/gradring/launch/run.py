"""`gradring run`: N ranks of a script on this host."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from gradring.launch.cores import Cores
from gradring.launch.job import Job, Program
from gradring.launch.watch import exit_code_of, failed, first_failure, watch

__all__ = ["run"]

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MOST_LINES = 8  # about ranks that ended after the first failure


def run(size: int, program: Program, *, max_restarts: int = 0, pin: bool = True) -> int:
    """Run the ranks, and restart them if that is allowed; returns the exit code of the first failure, or 0."""
    cores = Cores(size, pin=pin)
    if cores.note:
        _say(cores.note)
    try:
        with _signals() as pending:
            generation = 0
            while True:
                job = Job(size, generation, program, cores)
                try:
                    passed = watch(job, lambda: _drain(pending), lambda rank, job=job: _tell(job, rank))  # type: ignore[misc]
                finally:
                    job.close()
                code = _conclude(job, passed)
                if code == 0 or passed or generation == max_restarts:
                    return code
                generation += 1
                _say(f"restarting all ranks ({generation} of {max_restarts})")
    finally:
        cores.close()


def _drain(pending: list[int]) -> list[int]:
    taken = pending[:]
    del pending[: len(taken)]
    return taken


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list of the signals that arrive in the block. They have no other effect there."""
    pending: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        pending.append(number)

    # Signals that are ignored stay ignored, as under `nohup` and in background jobs of a shell.
    heeded = [number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, remember) for number in heeded}
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _conclude(job: Job, passed: list[int]) -> int:
    if signal.SIGINT in passed:
        return 128 + signal.SIGINT
    rank = first_failure(job)
    if rank is None:
        return 0
    _tell_others(job, rank)
    ended = job.end_of(rank)
    assert ended is not None
    return exit_code_of(ended)


def _tell(job: Job, rank: int) -> None:
    """Print the first failure, with its traceback."""
    note = job.note_of(rank)
    if note.kind == "interrupt":
        sys.stderr.write(note.text)
        return
    text = f"rank {rank} of {job.size} {job.end_of(rank)}"
    if not note.text:
        _say(text)
        return
    _say(f"{text}; its traceback:")
    sys.stderr.write(note.text if note.text.endswith("\n") else note.text + "\n")
    sys.stderr.flush()


def _tell_others(job: Job, first: int) -> None:
    others = [rank for rank in job.order if rank != first and (end := job.end_of(rank)) is not None and failed(end)]
    for rank in others[:_MOST_LINES]:
        last = job.note_of(rank).text.strip().rpartition("\n")[2]
        _say(f"rank {rank} {job.end_of(rank)}{': ' if last else ''}{last[:300]}")
    if len(others) > _MOST_LINES:
        _say(f"{len(others) - _MOST_LINES} more ranks failed")


def _say(text: str) -> None:
    print(f"gradring run: {text}", file=sys.stderr, flush=True)
