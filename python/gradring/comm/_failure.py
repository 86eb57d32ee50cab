"""Turns the failure of a group into an exception."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

from gradring.errors import CollectiveMismatch, GradringError, PeerDied, PeerStalled

# These are the values of gradring::Code (csrc/runtime/status.h) that concern ranks.
_CLOSED, _UNAVAILABLE, _DIED, _STALLED, _MISMATCH = 6, 8, 11, 12, 13


def raise_failure(
    code: int,
    message: str,
    rank: int,
    op: str,
    sequence: int,
    exit_status: int,
    signal_of: Callable[[int], int | None] | None,
) -> NoReturn:
    """Raise the exception that a code stands for. The native operations call this.

    ``exit_status`` says how the rank ended, or is -1 if the kernel does not know; ``signal_of`` is a function to ask in
    that case, or None.
    """
    if code in (_CLOSED, _UNAVAILABLE):
        raise GradringError(message)
    if code == _STALLED:
        raise PeerStalled(message, rank=rank, op=op, sequence=sequence)
    if code == _MISMATCH:
        raise CollectiveMismatch(message)
    if code != _DIED:
        raise GradringError(message)
    signal: int | None = None
    if exit_status >= 0:
        signal = os.WTERMSIG(exit_status) if os.WIFSIGNALED(exit_status) else None
    elif signal_of is not None:
        signal = signal_of(rank)
        if signal is not None:
            message += f" (signal {signal})"
    raise PeerDied(message, rank=rank, signal=signal, op=op, sequence=sequence)
