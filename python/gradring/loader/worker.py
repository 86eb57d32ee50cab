"""The main function of a worker process: maps the loader's memory, builds its source, and fills its rows."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from typing import Any

from gradring.launch.notes import pickle_error

__all__ = ["main"]


def main(text: str) -> None:
    """`text`: JSON of what the loader's process passes; see processes.py."""
    given: dict[str, Any] = json.loads(text)
    faulthandler.enable(given["stack_fd"])
    faulthandler.register(given["stack_signal"], file=given["stack_fd"], all_threads=True)
    # Import slow modules now, while the loader's process still writes the payload.
    from gradring import _core, sources
    from gradring.loader.processes import beginning

    parent = given["parent"]
    # The pipe shows that the parent has closed the loader. It does not show that the parent has died if a forked
    # child of the parent still holds the pipe; and a stopped worker reads no pipe.
    if not _core.die_with_parent(parent) or os.read(given["lifeline_fd"], 1) != b"g":
        sys.exit(0)
    _core.exit_with(given["lifeline_fd"])
    try:
        with beginning():
            worker, opened = _build(given, sources)
    except BaseException as error:
        with os.fdopen(given["trouble_fd"], "wb") as pipe:
            pipe.write(pickle_error(error, f"{type(error).__name__}: {error}"))
        sys.exit(3)
    os.close(given["trouble_fd"])
    worker.serve(pickle_error, lambda: os.getppid() == parent)
    del opened  # kept until now, because native code holds the functions weakly


def _build(given: dict[str, Any], sources: Any) -> tuple[Any, Any]:
    from multiprocessing import spawn

    from gradring import _core
    from gradring.launch.payload import load_payload
    from gradring.random_keys import own_globals

    own_globals()

    # Import the user's main module, as multiprocessing does, so that functions defined there are found.
    source, transforms, selections, casts = load_payload(given["payload_fd"], spawn.prepare)
    opened = sources.open_source(source).transformed(transforms).selected(selections).transformed(casts)
    worker = _core.StripeWorker(
        opened.native,
        given["control_fd"],
        given["slots_fd"],
        given["stride"],
        given["first_slots"],
        given["most_slots"],
        given["batch_size"],
        given["cells"],
        given["workers"],
        given["stripe"],
    )
    return worker, opened
