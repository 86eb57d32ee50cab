"""Random numbers that belong to a sample: they do not depend on which worker makes it, or when."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["generator_for", "own_globals", "reseeded"]

_MASK = 2**64 - 1
_owned = False


class _Keyed(threading.local):
    """A thread's generator, and the state that is set before each sample, in which only the words of the key change.

    It is Philox (Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", 2011): the key belongs to the epoch, and
    each sample has 2**128 numbers of its own.
    """

    def __init__(self) -> None:
        self.generator = np.random.Generator(np.random.Philox())
        self.counter, self.key = np.zeros(4, np.uint64), np.zeros(2, np.uint64)
        self.state: dict[str, Any] = {
            "bit_generator": "Philox",
            "state": {"counter": self.counter, "key": self.key},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,  # no number is left from another sample
            "has_uint32": 0,
            "uinteger": 0,
        }


_keyed: _Keyed | None = None


def generator_for(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """This thread's generator, set to the beginning of the sample's numbers. The next call sets it again."""
    global _keyed
    if _keyed is None:
        _keyed = _Keyed()
    mine = _keyed
    mine.counter[2], mine.key[0], mine.key[1] = sample, seed & _MASK, epoch & _MASK
    mine.generator.bit_generator.state = mine.state
    return mine.generator


def own_globals() -> None:
    """Note that this process only makes samples, so that the states of ``numpy.random`` and ``random`` need not be kept."""
    global _owned
    _owned = True


@contextmanager
def reseeded(seed: int, epoch: int, sample: int) -> Iterator[None]:
    """While the block runs, ``numpy.random`` and ``random`` give the sample's numbers. After the block they continue as
    before, unless the process only makes samples."""
    before = None if _owned else (np.random.get_state(), random.getstate())  # noqa: NPY002 (what users call)
    word = generator_for(seed, epoch, sample).bit_generator.random_raw()
    np.random.seed(word & 0xFFFFFFFF)  # noqa: NPY002
    random.seed(word >> 32)
    try:
        yield
    finally:
        if before is not None:
            np.random.set_state(before[0])  # noqa: NPY002
            random.setstate(before[1])
