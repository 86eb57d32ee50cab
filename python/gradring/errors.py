"""The exceptions of gradring. Misuse raises ``ValueError`` or ``TypeError``; these are for everything else."""

from __future__ import annotations

import re

__all__ = [
    "CheckpointCorrupt",
    "CheckpointMismatch",
    "CollectiveMismatch",
    "DeviceUnavailable",
    "GradientMismatch",
    "GradringError",
    "LoaderError",
    "NonFinite",
    "NotBuilt",
    "PeerDied",
    "PeerStalled",
    "PeerStopped",
    "WorkerDied",
]


class GradringError(RuntimeError):
    """The base of every error that is not plain misuse.

    >>> issubclass(NonFinite, GradringError)
    True
    """


class NotBuilt(GradringError, NotImplementedError, AttributeError):
    """A planned feature that this version does not have; ``hasattr`` returns False for it.

    >>> issubclass(NotBuilt, NotImplementedError)
    True
    """


class NonFinite(GradringError):
    """A loss became NaN or infinite. The parameters are those of the last whole step before it."""


class GradientMismatch(GradringError, AssertionError):
    """A gradient differs from finite differences, as ``gr.check_grad`` found; the message names the worst element."""


class CheckpointCorrupt(GradringError):
    """A checkpoint is truncated, damaged or foreign. Nothing was changed by reading it."""


class CheckpointMismatch(GradringError):
    """A checkpoint is sound, but of another model, optimizer or set of callbacks. Nothing was changed by reading it."""


class LoaderError(GradringError):
    """A source of batches failed, or its consumer held every batch until the deadline passed."""


class WorkerDied(LoaderError):
    """A loader's worker process ended without finishing its batch.

    ``pid`` is the process. ``signal`` killed it; if None, it ended with ``exit_code``, which is also None if other
    code in this process waited for the worker first. ``resident_bytes`` is its memory after its last batch.
    """

    pid: int = 0
    signal: int | None = None
    exit_code: int | None = 0
    resident_bytes: int = 0


class DeviceUnavailable(GradringError):
    """The requested device does not exist, or this installation was built without support for it."""


class PeerDied(GradringError):
    """Another rank ended while this one waited for it.

    ``rank`` is the rank that ended, and ``signal`` what killed it, or None; ``op`` is the operation, and ``sequence``
    its number on this rank.
    """

    def __init__(
        self, message: str = "", *, rank: int = -1, signal: int | None = None, op: str = "", sequence: int = 0
    ) -> None:
        super().__init__(message)
        self.rank = rank
        self.signal = signal
        self.op = op
        self.sequence = sequence


class PeerStalled(GradringError):
    """Another rank did not answer before the deadline.

    ``rank`` is the rank that did not answer; ``op`` is the operation, and ``sequence`` its number on this rank.
    """

    def __init__(self, message: str = "", *, rank: int = -1, op: str = "", sequence: int = 0) -> None:
        super().__init__(message)
        self.rank = rank
        self.op = op
        self.sequence = sequence


class PeerStopped(GradringError):
    """Another rank of a training has stopped, by an exception or an interrupt of its own. ``rank`` is that rank. The
    parameters are those of the last whole step, on all ranks."""

    interrupted: bool = False
    """Whether a signal has stopped that rank."""

    def __init__(self, message: str = "", *, rank: int = -1) -> None:
        super().__init__(message)
        self.rank = rank


class CollectiveMismatch(GradringError):
    """Ranks called different collectives, or the same one with different shapes or dtypes."""


def reason(error: BaseException) -> str:
    """What an error says, without the name in brackets with which it begins: for a message that has a name of its own.

    >>> reason(ValueError("[Linear] inputs must be an int of at least 1, got 0"))
    'inputs must be an int of at least 1, got 0'
    """
    return re.sub(r"^\[[^\]\n]+\]:? ", "", str(error))
