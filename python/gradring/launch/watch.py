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
_BY_THEMSELVES = 2.0  # after the first failure; who waits for a peer hears of its death within one
_AFTER_TERM = 3.0
_AFTER_SIGNAL = 30.0  # after a signal from outside, which may be the time to save


def failed(ended: Ended) -> bool:
    """Whether that is no success."""
    return ended.signal is not None or ended.code != 0


def exit_code_of(ended: Ended) -> int:
    """As a shell tells it."""
    return 128 + ended.signal if ended.signal is not None else ended.code or 0


def first_failure(job: Job) -> int | None:
    """The rank whose failure came first; one that failed because of another only if there is no other."""
    ranks = [rank for rank in job.order if (ended := job.end_of(rank)) is not None and failed(ended)]
    causes = [rank for rank in ranks if job.note_of(rank).kind != "peer"]
    return next(iter(causes or ranks), None)


def watch(job: Job, wanted: Callable[[], list[int]], found: Callable[[int], None]) -> list[int]:
    """Serves the job until all ranks have ended; returns the signals that were passed on.

    `wanted()` gives signals to pass on since it was last asked; a second SIGINT becomes SIGKILL. `found(rank)` hears once of
    the failure that came first, as soon as it is known.
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
