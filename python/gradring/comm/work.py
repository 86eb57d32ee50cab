"""The result of an operation with ``async_op=True``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradring.arguments import real

if TYPE_CHECKING:
    from gradring import _core

__all__ = ["Work"]


class Work:
    """A running operation. It completes whether or not you wait for it, and keeps its arrays alive until it ends.

    >>> import gradring as gr, numpy as np
    >>> with gr.comm.init() as comm:
    ...     work = comm.all_reduce(np.ones(2), async_op=True)
    ...     work.wait()
    array([1., 1.])
    """

    def __init__(self, native: _core.CommWork, keeps: object) -> None:
        self._native = native
        self._keeps = keeps  # the communicator, which must not close before the operation has ended

    def done(self) -> bool:
        """Whether it has ended, with success or not; never waits."""
        return self._native.done

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the end, and return the operation's array. Every call returns it.

        Raises what the operation would have raised, or TimeoutError after ``timeout`` seconds: the operation then goes
        on.
        """
        if timeout is not None:
            timeout = real("Work.wait", "timeout", timeout, least=0, also="None")
        if not self._native.wait(-1.0 if timeout is None else timeout):
            raise TimeoutError(f"[Work.wait] the operation did not end within {timeout} s; it goes on")
        return self._native.result
