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
        self._half = 0
        self._kinds: list[tuple[Array, Array]] = []  # for each dtype all planes, and their sum, which becomes the mean
        self._means: dict[str, Array] = {}  # views of the latter
        self._own: tuple[list[tuple[str, Array]], ...] = [], []  # views of this rank's planes
        kinds: dict[Any, list[tuple[str, int, int]]] = {array.dtype: [] for array in trained.values()}
        for name, array in trained.items():
            known = kinds[array.dtype]
            begin = known[-1][2] if known else 0
            known.append((name, begin, begin + array.size))
        sizes = [2 * peers.size * _padded(places[-1][2] * dtype.itemsize) for dtype, places in kinds.items()]
        for (dtype, places), arena in zip(kinds.items(), peers.share(sizes), strict=True):
            count = _padded(places[-1][2] * dtype.itemsize) // dtype.itemsize
            planes = np.frombuffer(arena, dtype, 2 * peers.size * count).reshape(2, peers.size, count)
            total = np.zeros(count, dtype)
            self._kinds.append((planes, total))
            for name, begin, end in places:
                shape = trained[name].shape
                self._means[name] = total[begin:end].reshape(shape)
                for own, half in zip(self._own, planes, strict=True):
                    own.append((name, half[peers.rank, begin:end].reshape(shape)))

    @classmethod
    def of(cls, peers: Peers, trained: Mapping[str, Array]) -> SmallPlanes | None:
        """The planes for these parameters; None if they are not small. All ranks call it."""
        bytes_ = peers.size * sum(array.nbytes for array in trained.values())
        return cls(peers, trained) if 0 < bytes_ <= _MOST_BYTES else None

    def write(self, result: StepResult | None) -> int:
        """Write the sums of this rank, or zeros, before a meeting. Returns in which of its two planes they are."""
        for name, own in self._own[self._half]:
            if result is None:
                own[...] = 0
            elif result.summed:
                own[...] = result.grads[name]
            else:
                np.multiply(result.grads[name], own.dtype.type(result.samples), out=own)
        return self._half

    def means(self, halves: Sequence[int], weight: float) -> tuple[dict[str, Array], bool]:
        """The sums over all ranks divided by ``weight``, after they have met and said in which of their planes their gradients
        are, and whether all numbers are finite. The next call writes into the same arrays."""
        self._half ^= 1
        finite = True
        for planes, total in self._kinds:
            np.add(planes[halves[0], 0], planes[halves[1], 1], out=total)
            for rank in range(2, len(halves)):
                total += planes[halves[rank], rank]
            np.divide(total, total.dtype.type(weight), out=total)
            finite = finite and bool(np.isfinite(total).all())
        return self._means, finite


def _padded(bytes_: int) -> int:
    return -(-bytes_ // _LINE) * _LINE
