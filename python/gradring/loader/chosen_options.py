"""Checks of the options of a loader."""

from __future__ import annotations

from typing import Any

from gradring import arguments
from gradring.sources._selection import Chosen, Part, Selection, chosen

__all__ = ["batch_size_of", "place_of", "selections_of"]

_MOST_RANKS = 2**31


def selections_of(indices: Any, samples: int) -> tuple[Selection, ...]:
    """The selections that a user or ``split`` made."""
    if indices is None:
        return ()
    if isinstance(indices, tuple) and indices and all(isinstance(one, (Chosen, Part)) for one in indices):
        return indices
    return (chosen(indices, samples),)


def place_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size: the given ones, or else those of a world of one."""
    if world_size is None and rank is None:
        return 0, 1
    if world_size is None or rank is None:
        raise ValueError("[Loader] rank and world_size go together: give both or neither")
    world_size = arguments.whole("Loader", "world_size", world_size, 1, _MOST_RANKS)
    rank = arguments.whole("Loader", "rank", rank, 0)
    if rank >= world_size:
        raise ValueError(f"[Loader] rank is {rank}: it must be below world_size ({world_size})")
    return rank, world_size


def batch_size_of(batch_size: int | None, global_batch: int | None, world_size: int) -> int:
    if (batch_size is None) == (global_batch is None):
        raise TypeError("[Loader] give one of batch_size, of this rank, and global_batch, of all ranks")
    if batch_size is not None:
        return arguments.whole("Loader", "batch_size", batch_size, 1)
    whole = arguments.whole("Loader", "global_batch", global_batch, 1)
    if whole % world_size:
        raise ValueError(f"[Loader] global_batch is {whole}: it must be a multiple of world_size ({world_size})")
    return whole // world_size
