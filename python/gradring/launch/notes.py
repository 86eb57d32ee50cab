"""The note that a process leaves for the one that started it: an exception with its traceback, in memory that only
these two share."""

from __future__ import annotations

import pickle
import traceback

__all__ = ["RemoteTraceback", "format_error", "pickle_error", "unpickle_error"]

_LARGEST_NOTE = 60_000  # csrc/loader/control.h has room for 64 KiB


class RemoteTraceback(Exception):
    """The text of the traceback that an exception had in another process."""

    where = ""
    process = "a worker process"

    def __str__(self) -> str:
        return f"in {self.process}{self.where and f', while reading {self.where}'}:\n{self.args[0]}"


def format_error(error: BaseException) -> str:
    """The traceback of an exception, as Python prints it."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def pickle_error(error: BaseException | None, message: str) -> bytes:
    """Pickle an exception and the text of its traceback, for :func:`unpickle_error`; only the text if that fails."""
    text = message
    if error is not None:
        text = format_error(error)
        try:
            data = pickle.dumps((error.with_traceback(None), text[-_LARGEST_NOTE // 2 :]))
            pickle.loads(data)  # some exceptions can be pickled but not unpickled
            if len(data) <= _LARGEST_NOTE:
                return data
        except Exception:
            pass
    return pickle.dumps((None, text[-_LARGEST_NOTE // 2 :]))


def unpickle_error(data: bytes) -> tuple[BaseException | None, str]:
    """Read what :func:`pickle_error` wrote in a process that this one started: the exception, or None, and the text."""
    error, text = pickle.loads(data)
    return error, text
