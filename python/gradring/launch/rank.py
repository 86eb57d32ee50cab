"""The main function of a rank: bound to its launcher's life and to its cores, it runs a script, a module or a function."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn

from gradring.errors import CollectiveMismatch, PeerDied, PeerStalled, PeerStopped
from gradring.launch.inherited import Inherited, inherit
from gradring.launch.notes import format_error, pickle_error

__all__ = ["EXIT_CODES", "main"]

# The exit codes of a rank that ended because of another rank, by the exception that it raised.
EXIT_CODES: dict[type[BaseException], int] = {
    PeerDied: 81,
    PeerStalled: 82,
    CollectiveMismatch: 83,
    PeerStopped: 84,
}

_PR_SET_PDEATHSIG = 1
_LAST_SECONDS = 2.0  # how long functions registered with atexit may run in a rank that has failed
_LARGEST_TEXT = 1 << 20


def main(text: str) -> None:
    """`text`: JSON of what the launcher passes; see job.py."""
    given: dict[str, Any] = json.loads(text)
    _die_with(given["parent"])
    if given["cores"]:
        with suppress(OSError):  # this process may use other cores by now
            os.sched_setaffinity(0, given["cores"])
    for name, value in given.items():
        if name.endswith("_fd") and value is not None:
            os.set_inheritable(value, False)
    key = os.pread(given["key_fd"], 64, 0)
    os.close(given["key_fd"])
    link = socket.socket(fileno=given["link_fd"])
    inherit(Inherited(os.getpid(), given["rank"], given["size"], given["generation"], key, link))
    sys.argv = sys.argv[3:]
    run = _run_function if given["payload_fd"] is not None else _run_module if given["module"] else _run_script
    sys.exit(_guarded(run, given))


def _die_with(parent: int) -> None:
    """Make the kernel kill this process when its launcher ends, for any reason."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(137)  # the launcher had ended before this process asked for the signal


def _run_script(given: dict[str, Any]) -> bytes:
    sys.path[0:1] = [os.path.dirname(os.path.abspath(sys.argv[0]))]
    runpy.run_path(sys.argv[0], run_name="__main__")
    return b""


def _run_module(given: dict[str, Any]) -> bytes:
    sys.path[0:1] = [os.getcwd()]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    return b""


def _run_function(given: dict[str, Any]) -> bytes:
    from gradring.launch.spawned import call

    return call(given["payload_fd"])


def _guarded(run: Callable[[dict[str, Any]], bytes], given: dict[str, Any]) -> int:
    """Run the task, and leave a note if it raises; returns the exit code."""
    note_fd: int = given["note_fd"]
    try:
        result = run(given)
        if result:
            leave(note_fd, "result", "", result)
        return 0
    except SystemExit as request:
        if request.code is None or isinstance(request.code, int):
            return (request.code or 0) & 0xFF
        print(request.code, file=sys.stderr)
        return 1
    except BaseException as error:
        code, kind = 1, "exception"
        if isinstance(error, KeyboardInterrupt):
            code, kind = 128 + signal.SIGINT, "interrupt"
        for cause, number in EXIT_CODES.items():
            if any(isinstance(link, cause) for link in _chain(error)):
                code, kind = number, "peer"
        error.__traceback__ = _of_the_user(error.__traceback__)
        data = pickle_error(error, "") if given["payload_fd"] is not None else b""
        leave(note_fd, kind, format_error(error), data)
        _end(code)


def _chain(error: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    while error is not None and error not in links:
        links.append(error)
        error = error.__cause__
    return links


def _of_the_user(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames that run the script."""
    own = (os.path.dirname(__file__) + os.sep, runpy.__file__, "<frozen runpy>")
    rest = trace
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith(own):
        rest = rest.tb_next
    return rest or trace


def leave(note_fd: int, kind: str, text: str, data: bytes = b"") -> None:
    """Write the note that the launcher reads when this process has ended: a line of JSON, and bytes of a spawned function."""
    head = json.dumps({"kind": kind, "text": text[-_LARGEST_TEXT:]}).encode() + b"\n"
    with suppress(OSError), open(note_fd, "wb", closefd=False) as file:
        file.truncate(0)
        file.write(head)
        file.write(data)


def _end(code: int) -> NoReturn:
    """End a rank that has failed, even if it has threads, because the other ranks wait for the news."""

    def at_last() -> None:
        time.sleep(_LAST_SECONDS)
        os._exit(code)

    threading.Thread(target=at_last, daemon=True).start()
    with suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(code)
