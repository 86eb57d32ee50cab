"""The exceptions of gradring. Misuse raises ``ValueError`` or ``TypeError``; these are for everything else."""

from __future__ import annotations

__all__ = [
    "CheckpointCorrupt",
    "CheckpointMismatch",
    "CollectiveMismatch",
    "DeviceUnavailable",
    "GradringError",
    "LoaderError",
    "NonFinite",
    "NotBuilt",
    "PeerDied",
    "PeerStalled",
    "WorkerDied",
]


class GradringError(RuntimeError):
    """The base of every error that is not plain misuse.

    >>> issubclass(NonFinite, GradringError)
    True
    """


class NotBuilt(GradringError, NotImplementedError, AttributeError):
    """Something that is planned, and that this version does not have; to ``hasattr``, it is not there.

    >>> issubclass(NotBuilt, NotImplementedError)
    True
    """


class NonFinite(GradringError):
    """A loss became NaN or infinite. The parameters are those of the last whole step before it."""


class CheckpointCorrupt(GradringError):
    """A checkpoint is truncated, damaged or foreign. Nothing was changed by reading it."""


class CheckpointMismatch(GradringError):
    """A checkpoint is sound, but of another model, optimizer or set of callbacks. Nothing was changed by reading it."""


class LoaderError(GradringError):
    """A source of batches failed, or its consumer held every batch until the deadline passed."""


class WorkerDied(LoaderError):
    """A loader's worker process ended without finishing its batch.

    ``pid``; ``signal`` that killed it, or None with its ``exit_code``, which is None too if something else in this
    process waited for the worker first; ``resident_bytes`` after its last batch.
    """

    pid: int = 0
    signal: int | None = None
    exit_code: int | None = 0
    resident_bytes: int = 0


class DeviceUnavailable(GradringError):
    """The device that was asked for is not there, or this installation was built without it."""


class PeerDied(GradringError):
    """Another rank ended while this one waited for it.

    ``rank``; ``signal`` that killed it, or None; ``op``, the operation, and ``sequence``, its number on this rank.
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

    ``rank``; ``op``, the operation, and ``sequence``, its number on this rank.
    """

    def __init__(self, message: str = "", *, rank: int = -1, op: str = "", sequence: int = 0) -> None:
        super().__init__(message)
        self.rank = rank
        self.op = op
        self.sequence = sequence


class CollectiveMismatch(GradringError):
    """Ranks called different collectives, or the same one with different shapes or dtypes."""
