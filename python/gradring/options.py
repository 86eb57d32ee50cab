"""The options of a trainer, and their checks, for both forms of the trainer and for the session under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gradring import cuda_devices
from gradring.arguments import auto_or_whole, choice, float_dtype, real, whole
from gradring.errors import DeviceUnavailable

__all__ = ["Options", "require_one_process"]

_MOST_THREADS = 256


@dataclass(frozen=True)
class Options:
    """The options that a session has too."""

    dtype: Literal["float32", "float64"]
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
            dtype=float_dtype(where, dtype),
            threads=auto_or_whole(where, "threads", threads, 1, _MOST_THREADS) or "auto",
            accumulate=whole(where, "accumulate", accumulate, 1),
            clip_norm=None if clip_norm is None else real(where, "clip_norm", clip_norm, above=0, also="None"),
            nonfinite=choice(where, "nonfinite", nonfinite, ("raise", "ignore")),
            seed=whole(where, "seed", seed, 0, 2**63 - 1),
        )


def _is(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word


def require_one_process(*, device: Any, replicas: Any, parallel: Any, shards: Any, comm: Any) -> None:
    """Check that the options ask for one replica on the CPU, in one process. All others raise ``DeviceUnavailable``,
    ``ValueError`` or ``TypeError``."""
    if not _is(device, "cpu"):
        if isinstance(device, str) and device.startswith("cuda"):
            cuda_devices.require(device, "Trainer")
            raise DeviceUnavailable(
                f"[Trainer] device {device!r} works; training on it is not in this version: use 'cpu'"
            )
        raise DeviceUnavailable(f"[Trainer] device {device!r} is not available; this version has 'cpu'")
    if not _is(replicas, "auto"):
        choice("Trainer", "replicas", replicas, ("auto", 1), "this version has one; its step is spread over threads=")
    choice("Trainer", "parallel", parallel, ("allreduce",), "with one replica there is nothing to exchange")
    choice("Trainer", "shards", shards, (None, 1), "a batch has the same bits on any number of threads without it")
    choice("Trainer", "comm", comm, (None,), "this version trains in one process")
