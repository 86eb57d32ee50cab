"""Worker processes: started in parallel, watched, restarted, and ended; the loader's side."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradring.errors import LoaderError, WorkerDied
from gradring.launch.lasting_thread import call_where_threads_last
from gradring.launch.notes import RemoteTraceback, unpickle_error
from gradring.launch.payload import Payload
from gradring.launch.start import start_interpreter

__all__ = ["Workers", "beginning", "load_note"]

_LOG = logging.getLogger("gradring.loader")
_STACK_SIGNAL = signal.SIGRTMIN + 7
_BEGINNING = "GRADRING_WORKER_BEGINNING"  # the pid of a worker process that still imports
_GRACE = 0.5  # seconds that workers have to end by themselves


@contextmanager
def beginning() -> Iterator[None]:
    """Whether this is a worker process that is importing the main module, which may start no workers: they would start
    more."""
    os.environ[_BEGINNING] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[_BEGINNING]


def load_note(data: bytes) -> BaseException | None:
    """The exception that a worker left (see notes.pickle_error), with the remote traceback as its cause."""
    if not data:
        return None
    error, text = unpickle_error(data)
    if error is None:
        return LoaderError(f"[loader] a worker process failed:\n{text}")
    error.__cause__ = RemoteTraceback(text.rstrip())
    return error


@dataclass
class _Process:
    popen: subprocess.Popen[bytes]
    pidfd: int
    lifeline: int  # our end of a pipe; the worker ends when it closes
    trouble: int  # a worker that cannot begin writes the reason here
    stack: int  # the file to which faulthandler writes stacks

    def close(self) -> None:
        for fd in (self.pidfd, self.lifeline, self.trouble, self.stack):
            with suppress(OSError):
                os.close(fd)


class Workers:
    """The processes that fill the batches of one pipeline. They get `value`, which is pickled once."""

    def __init__(
        self, pipeline: Any, value: Callable[[], Any], *, workers: int, batch_size: int, cells: int, restart: int
    ):
        if os.environ.get(_BEGINNING) == str(os.getpid()):
            raise LoaderError(
                "[loader] a worker process that imports the main module would start workers of its own: put "
                "everything but definitions under `if __name__ == '__main__':`"
            )
        self._pipeline, self._restarts, self._pid = pipeline, restart, os.getpid()
        self._shape = {"workers": workers, "batch_size": batch_size, "cells": cells}
        self.restarted = 0
        self.broken = False  # Whether a worker is missing, or may be: no later pass can use these processes.
        self._processes: dict[int, _Process] = {}
        self._payload = Payload()
        try:
            for stripe in range(workers):
                self._start(stripe)
            # Write the payload while the interpreters start.
            self._payload.fill(_preparation(), value())
            for stripe in range(workers):
                self._go(stripe)
        except BaseException:
            self.close()
            raise

    def _start(self, stripe: int) -> None:
        with ExitStack() as on_error, ExitStack() as passed:

            def pipe(closes: ExitStack, stays: ExitStack) -> tuple[int, int]:
                reads, writes = os.pipe2(os.O_CLOEXEC)
                closes.callback(os.close, reads)
                stays.callback(os.close, writes)
                return reads, writes

            theirs, ours = pipe(passed, on_error)
            trouble, trouble_theirs = pipe(on_error, passed)
            stack = os.memfd_create("gradring-stack", os.MFD_CLOEXEC)
            on_error.callback(os.close, stack)
            given = {
                **self._shape,
                "stripe": stripe,
                "parent": os.getpid(),
                "payload_fd": self._payload.fd,
                "control_fd": self._pipeline.control_fd,
                "slots_fd": self._pipeline.slots_fd,
                "stride": self._pipeline.stride,
                "first_slots": self._pipeline.first_slots,
                "most_slots": self._pipeline.most_slots,
                "lifeline_fd": theirs,
                "trouble_fd": trouble_theirs,
                "stack_fd": stack,
                "stack_signal": int(_STACK_SIGNAL),
            }
            # Libraries get one thread per worker, because the workers already run in parallel.
            popen = call_where_threads_last(lambda: start_interpreter("gradring.loader.worker", given), _end)
            on_error.callback(_end, popen)
            process = _Process(popen, os.pidfd_open(popen.pid), ours, trouble, stack)
            on_error.pop_all()
        self._processes[stripe] = process
        self._pipeline.set_process(stripe, process.pidfd)

    def _go(self, stripe: int) -> None:
        # If the worker has ended already, check finds that.
        with suppress(BrokenPipeError):
            os.write(self._processes[stripe].lifeline, b"g")

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that live, by stripe."""
        return [process.popen.pid for _, process in sorted(self._processes.items())]

    def starting(self) -> bool:
        """Whether a worker does not read samples yet, because it still imports or unpickles its source."""
        return any(
            self._pipeline.worker_at(stripe)[3] != process.popen.pid for stripe, process in self._processes.items()
        )

    @contextmanager
    def _broken_by_errors(self) -> Iterator[None]:
        """Mark these processes as unusable for later passes if the block raises."""
        try:
            yield
        except BaseException:
            self.broken = True
            raise

    def check(self) -> bool:
        """Look for a worker that has ended. Restart it and return True, or raise the error that ended it."""
        with self._broken_by_errors():
            return self._check()

    def _check(self) -> bool:
        stripe = self._pipeline.dead_stripe()
        if stripe < 0:
            return False
        process = self._processes.pop(stripe)
        code = _exit_status(process)
        batch, _, resident, _ = self._pipeline.worker_at(stripe)
        trouble = _read_all(process.trouble)
        stack = _read_file(process.stack)
        process.close()
        if trouble:
            self._pipeline.recover_stripe(stripe, False)
            error = load_note(trouble)
            assert error is not None
            raise error
        died = _died(stripe, process.popen.pid, code, batch, resident, stack)
        if not self._take_restart(stripe, str(died)):
            self._pipeline.recover_stripe(stripe, False)
            raise died
        return True

    def _take_restart(self, stripe: int, why: str) -> bool:
        if self.restarted >= self._restarts:
            return False
        self.restarted += 1
        _LOG.warning("%s; restarting it (%d of %d)", why, self.restarted, self._restarts)
        self._pipeline.recover_stripe(stripe, True)
        self._start(stripe)
        self._go(stripe)
        return True

    def stuck(self, stripe: int, seconds: float) -> None:
        """Kill a stuck worker and start another in its place, or raise an error with its stack if no restarts are left."""
        with self._broken_by_errors():
            why = self._describe_stuck(stripe, seconds)
            if self.restarted >= self._restarts:
                raise LoaderError(why)
            process = self._processes.pop(stripe)
            process.popen.kill()
            process.popen.wait()  # After this, it can no longer write to a slot.
            process.close()
            self._take_restart(stripe, why)

    def _describe_stuck(self, stripe: int, seconds: float) -> str:
        """A text that says what the worker is doing, with its Python stack."""
        batch, since, resident, _ = self._pipeline.worker_at(stripe)
        process = self._processes[stripe]
        at = f"it has been at batch {batch} for {since:.1f} s" if batch >= 0 else "it is at no batch"
        return (
            f"[loader] no batch came within {seconds:.1f} s (timeout): worker process {stripe} (pid {process.popen.pid}, "
            f"{resident >> 20} MiB) is stuck; {at}\n{_stack_of(process)}"
        )

    def close(self) -> None:
        """End the workers: idle ones end at once, and busy ones are killed after half a second."""
        processes, self._processes = self._processes, {}
        self._payload.close()
        if os.getpid() != self._pid:
            return  # In a forked child, the workers belong to the parent.
        self._pipeline.close()
        self._pipeline.quit()
        for process in processes.values():
            with suppress(OSError):
                os.close(process.lifeline)
            process.lifeline = -1
        deadline = time.monotonic() + _GRACE
        for stripe, process in processes.items():
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(deadline - time.monotonic(), 0))
            if process.popen.returncode is None:
                process.popen.kill()
                process.popen.wait()
            self._pipeline.set_process(stripe, -1)
            process.close()


def _end(popen: subprocess.Popen[bytes]) -> None:
    popen.kill()
    popen.wait()


def _exit_status(process: _Process) -> int | None:
    """The exit code of a process that has ended, or minus the signal that ended it. None if it is unknown, because other code
    waited for it (a handler of SIGCHLD), or SIGCHLD is ignored."""
    code = None
    with suppress(ChildProcessError):
        # Do not use Popen.wait, which reports an exit code of 0 if it does not know how the process ended.
        result = os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
        if result is not None:
            code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
    process.popen.returncode = 0 if code is None else code  # With this, Popen does not wait for the process either.
    return code


def _preparation() -> dict[str, Any]:
    from multiprocessing import spawn

    data = spawn.get_preparation_data("gradring-loader-worker")
    data.pop("authkey", None)  # a secret that workers do not need
    return data


def _died(stripe: int, pid: int, code: int | None, batch: int, resident: int, stack: str) -> WorkerDied:
    number = -code if code is not None and code < 0 else None
    try:
        if code is None:
            how = "ended in an unknown way (this process ignores SIGCHLD, or a handler of it waits for every child)"
        else:
            how = f"was killed by {signal.Signals(number).name}" if number else f"ended with exit code {code}"
    except ValueError:
        how = f"was killed by signal {number}"
    doing = f"while filling batch {batch}" if batch >= 0 else "while waiting, or before its first batch"
    hint = " (the kernel's out-of-memory killer sends this signal)" if number == signal.SIGKILL else ""
    text = (
        f"[loader] worker process {stripe} (pid {pid}) {how}{hint} {doing}; it had {resident >> 20} MiB resident. "
        f"Loader(restart=n) starts it again up to n times"
    )
    error = WorkerDied(text + (f"\n{stack}" if stack else ""))
    error.pid, error.signal, error.exit_code, error.resident_bytes = pid, number, code, resident
    return error


def _stack_of(process: _Process) -> str:
    """Asks the worker's faulthandler for all its stacks; waits for at most a second."""
    with suppress(FileNotFoundError, IndexError):
        state = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state in "Tt":
            return "The process is stopped (SIGSTOP or a debugger), so it cannot show its stack."
    before = os.fstat(process.stack).st_size
    with suppress(ProcessLookupError):
        os.kill(process.popen.pid, _STACK_SIGNAL)
    last, deadline = -1, time.monotonic() + 1.0
    while time.monotonic() < deadline:
        size = os.fstat(process.stack).st_size
        if size > before and size == last:
            break
        last = size
        time.sleep(0.02)
    return _read_file(process.stack, before) or "It did not show its stack."


def _read_file(fd: int, offset: int = 0) -> str:
    with suppress(OSError):
        return os.pread(fd, 1 << 16, offset).decode(errors="replace")
    return ""


def _read_all(fd: int) -> bytes:
    os.set_blocking(fd, False)
    data = b""
    with suppress(BlockingIOError):
        while part := os.read(fd, 1 << 16):
            data += part
    return data
