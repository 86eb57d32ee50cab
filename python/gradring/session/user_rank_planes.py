"""Small gradients of a user's step, in memory that all ranks share: a meeting is enough to exchange them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.session.peers import Peers
from gradring.session.user_parts import StepResult

__all__ = ["SmallPlanes"]

Array = NDArray[Any]

_MOST_BYTES = 1 << 16  # of all ranks' gradients: every rank reads all of them, and they stay in the second cache
_LINE = 64  # no cache line belongs to two ranks


class SmallPlanes:
    """A plane of gradients for each rank, twice. A rank writes its plane, meets the others, and then adds up all planes in rank
    order, as ``all_reduce`` does. For the next step it writes its other plane, because the others may still read this one; when
    they have met again, they have read it."""

    def __init__(self, peers: Peers, trained: Mapping[str, Array]) -> None:
        self._rank, self._half = peers.rank, 0
        self._kinds: list[tuple[list[tuple[str, int, int, tuple[int, ...]]], Array]] = []
        kinds: dict[Any, list[tuple[str, int, int, tuple[int, ...]]]] = {array.dtype: [] for array in trained.values()}
        for name, array in trained.items():
            known = kinds[array.dtype]
            begin = known[-1][2] if known else 0
            known.append((name, begin, begin + array.size, array.shape))
        sizes = [2 * peers.size * _padded(places[-1][2] * dtype.itemsize) for dtype, places in kinds.items()]
        for (dtype, places), arena in zip(kinds.items(), peers.share(sizes), strict=True):
            count = _padded(places[-1][2] * dtype.itemsize) // dtype.itemsize
            planes = np.frombuffer(arena, dtype, 2 * peers.size * count)
            self._kinds.append((places, planes.reshape(2, peers.size, count)))

    @classmethod
    def of(cls, peers: Peers, trained: Mapping[str, Array]) -> SmallPlanes | None:
        """The planes for these parameters; None if they are not small. All ranks call it."""
        bytes_ = peers.size * sum(array.nbytes for array in trained.values())
        return cls(peers, trained) if 0 < bytes_ <= _MOST_BYTES else None

    def write(self, result: StepResult | None) -> int:
        """Write the sums of this rank, or zeros, before a meeting. Returns in which of its two planes they are."""
        for places, planes in self._kinds:
            own = planes[self._half, self._rank]
            for name, begin, end, shape in places:
                if result is None:
                    own[begin:end] = 0
                elif result.summed:
                    own[begin:end].reshape(shape)[...] = result.grads[name]
                else:
                    samples = planes.dtype.type(result.samples)
                    np.multiply(result.grads[name], samples, out=own[begin:end].reshape(shape))
        return self._half

    def sums(self, halves: Sequence[int]) -> dict[str, Array]:
        """The sums over all ranks, after they have met and said in which of their planes their gradients are."""
        self._half ^= 1
        summed: dict[str, Array] = {}
        for places, planes in self._kinds:
            total = planes[halves[0], 0].copy()
            for rank, half in enumerate(halves[1:], 1):
                total += planes[half, rank]
            summed |= {name: total[begin:end].reshape(shape) for name, begin, end, shape in places}
        return summed


def _padded(bytes_: int) -> int:
    return -(-bytes_ // _LINE) * _LINE
