"""The main function of a worker process: maps the loader's memory, builds its source, and fills its rows."""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import sys
import traceback
from typing import Any

__all__ = ["main", "pickle_error"]

_LARGEST_NOTE = 60_000  # csrc/loader/control.h has room for 64 KiB


def main(text: str) -> None:
    """`text`: JSON of what the loader's process passes; see processes.py."""
    given: dict[str, Any] = json.loads(text)
    faulthandler.enable(given["stack_fd"])
    faulthandler.register(given["stack_signal"], file=given["stack_fd"], all_threads=True)
    # What takes time to import is imported while the payload is being written.
    from gradring import _core, sources
    from gradring.loader.processes import beginning

    if os.read(given["lifeline_fd"], 1) != b"g":
        sys.exit(0)
    _core.exit_with(given["lifeline_fd"])
    parent = given["parent"]
    try:
        with beginning():
            worker, opened = _build(given, sources)
    except BaseException as error:
        with os.fdopen(given["trouble_fd"], "wb") as pipe:
            pipe.write(pickle_error(error, f"{type(error).__name__}: {error}"))
        sys.exit(3)
    os.close(given["trouble_fd"])
    worker.serve(pickle_error, lambda: os.getppid() == parent)
    del opened  # kept until now: what is native holds its functions weakly


def _build(given: dict[str, Any], sources: Any) -> tuple[Any, Any]:
    from multiprocessing import spawn

    from gradring import _core
    from gradring.loader.payload import load_payload

    # As multiprocessing does for its own: functions of the user's main module must be found.
    source, transforms, casts = load_payload(given["payload_fd"], spawn.prepare)
    opened = sources.open_source(source).transformed(transforms).transformed(casts)
    worker = _core.LaneWorker(
        opened.native,
        given["control_fd"],
        given["slots_fd"],
        given["slots_bytes"],
        given["stride"],
        given["batch_size"],
        given["cells"],
        given["workers"],
        given["lane"],
    )
    return worker, opened


def pickle_error(error: BaseException | None, message: str) -> bytes:
    """An exception with its traceback as text, for :func:`gradring.loader.processes.load_note`."""
    text = message
    if error is not None:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        try:
            data = pickle.dumps((error.with_traceback(None), text[-_LARGEST_NOTE // 2 :]))
            pickle.loads(data)  # some exceptions can be pickled and not read back
            if len(data) <= _LARGEST_NOTE:
                return data
        except Exception:
            pass
    return pickle.dumps((None, text[-_LARGEST_NOTE // 2 :]))
