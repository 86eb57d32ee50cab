"""In a process of `gr.comm.spawn`: the function, called with its arguments."""

from __future__ import annotations

import pickle
from typing import Any

from gradring.launch.payload import load_payload

__all__ = ["ByValue", "call", "importing_main"]

_importing = False


def importing_main() -> bool:
    """Whether this process imports the user's main module, which may spawn nothing, or ranks would spawn ranks."""
    return _importing


def call(payload_fd: int) -> bytes:
    """Calls it; returns its result, pickled."""
    from multiprocessing import spawn

    # As multiprocessing does for its own: functions of the user's main module must be found.
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
    """A function that no module holds, such as a notebook's: its code travels."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self) -> Any:
        return pickle.loads(self._data)
