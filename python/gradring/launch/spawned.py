"""Calls the function of `gr.comm.spawn` in one of its processes."""

from __future__ import annotations

import pickle
from typing import Any

from gradring.launch.payload import load_payload

__all__ = ["ByValue", "call", "importing_main"]

_importing = False


def importing_main() -> bool:
    """Whether this process is importing the user's main module, which may spawn nothing: ranks would spawn ranks."""
    return _importing


def call(payload_fd: int) -> bytes:
    """Call the function of the payload; returns its result, pickled."""
    from multiprocessing import spawn

    # Import the user's main module, as multiprocessing does, so that functions defined there are found.
    global _importing
    _importing = True
    try:
        wrapped, arguments = load_payload(payload_fd, spawn.prepare)
    finally:
        _importing = False
    function: Any = wrapped() if isinstance(wrapped, ByValue) else wrapped
    result = function(*arguments)
    return pickle.dumps(result, protocol=5)


class ByValue:
    """A function that no module holds, such as a notebook's. Its code is sent to the ranks."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self) -> Any:
        return pickle.loads(self._data)
