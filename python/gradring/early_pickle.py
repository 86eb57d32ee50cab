"""Pickles a function for worker processes before its first sample is made."""

from __future__ import annotations

import pickle
import sys
from typing import Any

__all__ = ["EarlyPickle"]


class EarlyPickle:
    """Pickle a function; large buffers in it are not copied. Raises ``TypeError`` that says what to do.

    If cloudpickle is installed, it pickles what a worker could not import, such as a function of a notebook, and what
    pickle cannot name, such as a lambda.
    """

    def __init__(self, function: Any, owner: str) -> None:
        self._owner = owner
        self._buffers: list[pickle.PickleBuffer] = []
        try:
            data = pickle.dumps(function, protocol=5, buffer_callback=self._buffers.append)
            reason = "it was defined in a session that workers cannot import" if _of_this_session(data) else ""
        except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
            data, reason = b"", str(error)
        if reason:
            data = self._by_value(function, reason)
        self._data = data

    def _by_value(self, function: Any, reason: str) -> bytes:
        self._buffers = []
        try:
            import cloudpickle  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError:
            raise TypeError(
                f"[{self._owner}] fn cannot be sent to worker processes: {reason}. Put it into a module, install cloudpickle, "
                "or use workers='threads'"
            ) from None
        try:
            data: bytes = cloudpickle.dumps(function, protocol=5, buffer_callback=self._buffers.append)
        except Exception as error:
            raise TypeError(
                f"[{self._owner}] fn cannot be sent to worker processes: {error}. Open files in fn at its first sample, and "
                "not before, or use workers='threads'"
            ) from error
        return data

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Older protocols have no out-of-band buffers.
        buffers = self._buffers if protocol >= 5 else [bytearray(buffer.raw()) for buffer in self._buffers]
        return _restored, (self._data, buffers, self._owner)

    def load(self) -> Any:
        """The function, in a worker process. ``TypeError`` for one that only the process of the loader has.

        What else keeps it from being made, such as a missing library, raises its own error.
        """
        try:
            return pickle.loads(self._data, buffers=self._buffers)
        except AttributeError as error:
            where = ' A worker imports the main module, but not what stands behind its `if __name__ == "__main__"`.'
            raise TypeError(
                f"[{self._owner}] a worker process cannot make fn: {error}.{where if '__m' in str(error) else ''} Define it at "
                "the top of a module that workers can import, or use workers='threads'"
            ) from error


def _restored(data: bytes, buffers: list[Any], owner: str) -> EarlyPickle:
    made = EarlyPickle.__new__(EarlyPickle)
    made._data, made._buffers, made._owner = data, buffers, owner
    return made


def _of_this_session(data: bytes) -> bool:
    """Whether a pickle names something of a main module that has no file to import it from."""
    return b"__main__" in data and not hasattr(sys.modules.get("__main__"), "__file__")
