"""Watches a job until all its ranks have ended. After the first failure it ends the others by SIGTERM and then SIGKILL, unless
they end by themselves."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from gradring.launch.ended import Ended
from gradring.launch.job import Job

__all__ = ["exit_code_of", "failed", "first_failure", "watch"]

_SLICE = 0.1  # seconds
_BY_THEMSELVES = 2.0  # seconds after the first failure; ranks that wait for a dead peer raise within one
_AFTER_TERM = 3.0
_AFTER_SIGNAL = 30.0  # seconds after a signal from outside, in which ranks may save


def failed(ended: Ended) -> bool:
    """Whether this end is a failure."""
    return ended.signal is not None or ended.code != 0


def exit_code_of(ended: Ended) -> int:
    """The exit code that a shell shows for this end."""
    return 128 + ended.signal if ended.signal is not None else ended.code or 0


def first_failure(job: Job) -> int | None:
    """The rank whose failure came first. A rank that failed because of another one counts only if there is no other."""
    ranks = [rank for rank in job.order if (ended := job.end_of(rank)) is not None and failed(ended)]
    causes = [rank for rank in ranks if job.note_of(rank).kind != "peer"]
    return next(iter(causes or ranks), None)


def watch(job: Job, wanted: Callable[[], list[int]], found: Callable[[int], None]) -> list[int]:
    """Serve the job until all ranks have ended; returns the signals that were passed on.

    `wanted()` returns the signals to pass on that arrived since its last call; a second SIGINT becomes SIGKILL.
    `found(rank)` is called once, as soon as the first failure is known.
    """
    passed: list[int] = []
    told = False
    terminate = kill = float("inf")
    while job.living:
        job.serve(_SLICE)
        now = time.monotonic()
        for number in wanted():
            again = number == signal.SIGINT and number in passed
            passed.append(number)
            job.signal(signal.SIGKILL if again else number)
            kill = min(kill, now + _AFTER_SIGNAL)
        rank = first_failure(job)
        if rank is not None and terminate == float("inf") and not passed:
            terminate = now + _BY_THEMSELVES
        if rank is not None and not told and (job.note_of(rank).kind != "peer" or not job.living or now > terminate):
            told = True
            found(rank)
        if now > terminate and job.living:
            terminate, kill = float("inf") if passed else now + 1e9, min(kill, now + _AFTER_TERM)
            job.signal(signal.SIGTERM)
        if now > kill:
            job.signal(signal.SIGKILL)
    rank = first_failure(job)
    if rank is not None and not told:
        found(rank)
    return passed
