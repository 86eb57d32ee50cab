"""The options of a trainer, and their checks, for both forms of the trainer and for the session under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gradring import devices
from gradring.arguments import auto_or_whole, choice, float_dtype, real, whole
from gradring.errors import NotBuilt

__all__ = [
    "FIRST_SCALE",
    "MOST_SCALE",
    "Options",
    "checked_lengths",
    "parts_of",
    "replicas_of",
    "shards_of",
    "staleness_of",
]

FIRST_SCALE, MOST_SCALE = 2**16, 2**24
"""The scale of the loss at the begin of a training in float16, and the largest one."""

_MOST_THREADS = 256
_ASYNCHRONOUS = ("locked", "atomic", "hogwild")


@dataclass(frozen=True)
class Options:
    """The options that a session has too."""

    dtype: Literal["float32", "float64", "bfloat16", "float16", "tf32"]
    threads: int | Literal["auto"]
    accumulate: int
    clip_norm: float | None
    nonfinite: str
    seed: int

    @classmethod
    def checked(
        cls, where: str, *, dtype: Any, threads: Any, accumulate: Any, clip_norm: Any, nonfinite: Any, seed: Any
    ) -> Options:
        """Check these options; errors begin with ``where``."""
        return cls(
            dtype=float_dtype(where, dtype, ("bfloat16", "float16", "tf32")),
            threads=auto_or_whole(where, "threads", threads, 1, _MOST_THREADS) or "auto",
            accumulate=whole(where, "accumulate", accumulate, 1),
            clip_norm=None if clip_norm is None else real(where, "clip_norm", clip_norm, above=0, also="None"),
            nonfinite=choice(where, "nonfinite", nonfinite, ("raise", "ignore")),
            seed=whole(where, "seed", seed, 0, 2**63 - 1),
        )

    @property
    def stored(self) -> Literal["float32", "float64"]:
        """The dtype of the parameters."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def scales(self) -> bool:
        """Whether the loss is multiplied by a scale, because gradients pass through float16."""
        return self.dtype == "float16"

    @property
    def operands(self) -> str | None:
        """The dtype of what products read, if it is narrower than that of the parameters."""
        return None if self.dtype == self.stored else self.dtype


def _is(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word


def shards_of(shards: Any, ranks: int, said: str, parallel: str = "allreduce") -> int:
    """How many parts with sums of their own a batch has; 0 if it is not divided so. ``said`` names the ``ranks`` that share
    the parts: ``"replicas is 3"``.

    >>> shards_of(8, 2, "replicas is 2")
    8
    """
    if shards is None:
        return 0
    count = whole("Trainer", "shards", shards, 1, _MOST_THREADS)
    if parallel != "allreduce":
        raise ValueError(
            f"[Trainer] shards is {count}, parallel is {parallel!r}: shards are parts of a batch, whose gradients "
            "parallel='allreduce' adds up, and asynchronous workers take whole batches; leave one of the two out"
        )
    if count & (count - 1):
        raise ValueError(
            f"[Trainer] shards is {count}: must be a power of two, because the sums over shards are added in a binary tree"
        )
    if count % ranks:
        fitting = [str(1 << bit) for bit in range(count.bit_length())]
        raise ValueError(
            f"[Trainer] shards is {count}, {said}: must divide shards, so it must be {' or '.join(fitting[-4:])}"
            if len(fitting) > 1
            else f"[Trainer] shards is 1, {said}: one shard is computed by one; leave shards out, or give a larger one"
        )
    return count if count > 1 else 0


def parts_of(shards: Any, replicas: int, *, parallel: str, comm: Any, device: str) -> int:
    """As ``shards_of``, for that many ``replicas`` in each rank of ``comm``. ``NotBuilt`` for what is planned."""
    together = 1 if comm is None else comm.size
    said = f"replicas is {replicas}" if together == 1 else f"comm has {together} ranks"
    if together > 1 and replicas > 1:
        said += f" of {replicas} replicas, which are {replicas * together}"
    count = shards_of(shards, replicas * together, said, parallel)
    if count and device != "cpu":
        raise NotBuilt(f"shards= on device {device!r} is planned; this version has it on the CPU")
    return count


def replicas_of(*, device: Any, replicas: Any, parallel: Any, comm: Any) -> int:
    """How many replicas train, on threads of this process. What is planned raises ``NotBuilt``, and all else
    ``DeviceUnavailable``, ``ValueError`` or ``TypeError``."""
    on_cpu = _is(device, "cpu")
    if not on_cpu:
        devices.named(device, "Trainer")
    choice("Trainer", "parallel", parallel, ("allreduce", *_ASYNCHRONOUS), "which replicas= and comm= use")
    if not on_cpu and parallel != "allreduce":
        raise NotBuilt(f"parallel={parallel!r} on device {device!r} is planned; asynchronous updates are on the CPU")
    if comm is not None and not isinstance(getattr(comm, "size", None), int):
        raise TypeError(f"[Trainer] comm must be None or a communicator of gr.comm, got {comm!r}")
    if isinstance(replicas, (list, tuple)):
        raise NotBuilt("replicas= as a list of devices is planned; this version takes a number of threads on the CPU")
    if comm is not None and comm.size > 1 and parallel != "allreduce":
        raise NotBuilt(f"parallel={parallel!r} over processes is planned; this version has it for threads, replicas=")
    count = auto_or_whole("Trainer", "replicas", replicas, 1, _MOST_THREADS) or 1
    if (count > 1 or (comm is not None and comm.size > 1)) and not on_cpu:
        raise NotBuilt(f"replicas= and comm= on device {device!r} are planned; this version trains on one CUDA device")
    return count


def staleness_of(parallel: Any, staleness: Any) -> int | None:
    """The bound of ``staleness=``: by how many other updates an asynchronous update may be late; None is no bound."""
    if staleness is None:
        return None
    bound = whole("Trainer", "staleness", staleness, 0, 2**63 - 1, also="None")
    if parallel not in _ASYNCHRONOUS:
        raise ValueError(
            f"[Trainer] staleness={bound} bounds asynchronous updates, and parallel is {parallel!r}, which has none: give "
            f"parallel= one of {_ASYNCHRONOUS}, or leave staleness out"
        )
    return bound


def checked_lengths(epochs: Any, steps_per_epoch: Any) -> tuple[int, int | None]:
    """Check the number of epochs and that of the steps of each; an array in place of the epochs is the target of ``x``."""
    several = epochs.shape if hasattr(epochs, "shape") else hasattr(epochs, "__len__")
    if several and not isinstance(epochs, str):
        raise TypeError("[Trainer.fit] x and y come as one pair: fit((x, y), epochs)")
    if steps_per_epoch is not None:
        steps_per_epoch = whole("Trainer.fit", "steps_per_epoch", steps_per_epoch, 1, also="None")
    return whole("Trainer.fit", "epochs", epochs, 0), steps_per_epoch
