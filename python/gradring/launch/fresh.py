"""`gr.comm.spawn`: a function, called in fresh processes that are the ranks of a world."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

from gradring.arguments import whole
from gradring.errors import GradringError
from gradring.launch.cores import Cores
from gradring.launch.ended import Ended
from gradring.launch.job import Job, Program
from gradring.launch.messages import LARGEST_WORLD
from gradring.launch.notes import RemoteTraceback, unpickle_error
from gradring.launch.payload import Payload
from gradring.launch.spawned import ByValue, importing_main
from gradring.launch.watch import first_failure, watch

__all__ = ["spawn"]


def spawn(function: Callable[..., Any], nprocs: int, *arguments: Any, pin: bool = True) -> list[Any]:
    """Call ``function(*arguments)`` in `nprocs` fresh processes; return the results, by rank.

    The processes are the ranks of a world, which ``gr.comm.init()`` joins there.

    The first failure ends the other ranks, and its exception is raised here, with the rank's traceback as the cause.
    Function, arguments and results must be picklable; `cloudpickle`, if it is installed, sends the code of a function
    that a notebook defines. Processors are divided among the ranks, unless `pin` is False. Raises ``GradringError`` if a
    rank was killed or called exit.

    >>> from gradring.launch import spawn
    >>> spawn(len, 0)
    Traceback (most recent call last):
    ValueError: [spawn] nprocs must be an int from 1 to 256, got 0
    """
    if not callable(function):
        raise TypeError(f"[spawn] function must be callable, got {type(function).__name__}")
    nprocs = whole("spawn", "nprocs", nprocs, 1, LARGEST_WORLD)
    if importing_main():
        raise GradringError(
            "[spawn] a rank that imports the main module would spawn ranks of its own: put everything but definitions under "
            "`if __name__ == '__main__':`"
        )
    payload, cores = Payload(), Cores(nprocs, pin=pin)
    try:
        payload.fill(_preparation(), (_portable(function), arguments))
        job = Job(nprocs, 0, Program(payload_fd=payload.fd), cores)
        try:
            watch(job, list, lambda rank: None)
        finally:
            job.close()
        return _results(job)
    finally:
        payload.close()
        cores.close()


def _preparation() -> dict[str, Any]:
    from multiprocessing import spawn as starting

    data = starting.get_preparation_data("gradring-rank")
    data.pop("authkey", None)  # a secret that ranks do not need
    return data


def _portable(function: Callable[..., Any]) -> Any:
    """The function itself if the ranks can import it; otherwise its code."""
    main = sys.modules["__main__"]
    importable = getattr(main, "__spec__", None) is not None or getattr(main, "__file__", None) is not None
    if getattr(function, "__module__", None) != "__main__" or importable:
        return function
    try:
        import cloudpickle
    except ImportError as error:
        raise ValueError(
            f"[spawn] {getattr(function, '__name__', function)} is defined in a session, from which fresh processes cannot "
            f"import it: put it into a module, or install cloudpickle"
        ) from error
    return ByValue(cloudpickle.dumps(function))


def _results(job: Job) -> list[Any]:
    rank = first_failure(job)
    if rank is None:
        rank = next((rank for rank in range(job.size) if job.note_of(rank).kind != "result"), None)
        if rank is None:
            return [pickle.loads(job.note_of(rank).data) for rank in range(job.size)]
    note, ended = job.note_of(rank), job.end_of(rank)
    where = f"rank {rank} of {job.size}"
    if note.kind == "result":
        raise GradringError(f"[spawn] {where} {ended} after its function had returned")
    if not note.data:
        raise _left(where, ended)
    # Unpickling is safe: only this process and its own child could write to this memory.
    error, text = unpickle_error(note.data)
    if error is None:
        raise GradringError(f"[spawn] {where} failed:\n{text}")
    cause = RemoteTraceback(text.rstrip())
    cause.process = where
    raise error from cause


def _left(where: str, ended: Ended | None) -> GradringError:
    error = GradringError(f"[spawn] {where} {ended}")
    if ended is not None and ended.code == 0:
        error = GradringError(f"[spawn] {where} left before its function returned")
    return error
