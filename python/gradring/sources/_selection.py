"""Which samples of a source: chosen by number, or a part of a division."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import flag, plain, whole
from gradring.arrays import as_ndarray, is_array_like
from gradring.sources._base import Source
from gradring.sources._open import open_source
from gradring.sources._opened import Opened

__all__ = ["Chosen", "Part", "Selection", "Shared", "chosen", "division", "folds"]

_MOST_SEED = 2**64 - 1  # the key of the shuffle has 64 bits of seed


@dataclass(frozen=True)
class Chosen:
    """The samples with these numbers, in this order."""

    numbers: NDArray[np.int64]

    def of(self, native: Any) -> Any:
        """The native source of these samples."""
        return native.selected(self.numbers)

    @property
    def key(self) -> int:
        """A number that is different for almost every other selection."""
        return zlib.crc32(self.numbers.tobytes())


@dataclass(frozen=True)
class Part:
    """The samples from ``begin`` to ``end`` of an order, or all others: it has a few numbers, however many samples
    there are."""

    begin: int
    end: int
    others: bool
    shuffle: bool
    seed: int

    def of(self, native: Any) -> Any:
        """The native source of these samples."""
        return native.part(self.begin, self.end, self.others, self.shuffle, self.seed)

    @property
    def key(self) -> int:
        """A number that is different for almost every other selection."""
        return zlib.crc32(repr((self.begin, self.end, self.others, self.shuffle, self.seed)).encode())


Selection = Chosen | Part


class Shared(Source):
    """A source that several loaders read: it is opened once. Worker processes open it for themselves."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self._opened: Opened | None = None

    def opened(self) -> Opened:
        if self._opened is None:
            self._opened = open_source(self.source)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "_opened": None}


def chosen(indices: Any, samples: int) -> Chosen:
    """Check the numbers of samples: ``ValueError`` if one is negative or too large, or if there are none."""
    if isinstance(indices, slice):
        numbers = np.arange(samples, dtype=np.int64)[indices]
    else:
        if is_array_like(indices):
            found = as_ndarray("Loader", "indices", indices)
        else:
            found = np.asarray(list(indices) if isinstance(indices, Iterable) else indices)
        if found.dtype == bool:
            raise TypeError(
                "[Loader] indices are of dtype bool: numpy.flatnonzero(mask) gives the numbers of what is true"
            )
        if found.size and found.dtype.kind not in "iu":
            raise TypeError(f"[Loader] indices must be whole numbers of samples, got dtype {found.dtype}")
        if found.ndim != 1:
            raise ValueError(
                f"[Loader] indices must be one list of samples' numbers, got an array of shape {found.shape}"
            )
        wrong = np.flatnonzero((found < 0) | (found >= samples)) if found.size else found
        if len(wrong):
            hint = "; negative numbers do not count from the end here" if found[wrong[0]] < 0 else ""
            raise ValueError(
                f"[Loader] indices[{wrong[0]}] is {found[wrong[0]]}: the source has the samples 0 to {samples - 1}{hint}"
            )
        numbers = found.astype(np.int64)
    if not len(numbers):
        raise ValueError("[Loader] indices are empty: there must be at least one sample")
    return Chosen(np.ascontiguousarray(numbers))


def division(samples: int, share: Any, *, seed: Any, shuffle: Any) -> list[Part]:
    """Make parts with these shares of all samples; a single share also gives the rest. ``ValueError`` for an empty
    part."""
    seed, shuffle = whole("Loader.split", "seed", seed, 0, _MOST_SEED), flag("Loader.split", "shuffle", shuffle)
    share = plain(share)
    one_alone = isinstance(share, Real)
    several: list[Any] = list(share) if isinstance(share, Iterable) else [share]  # a string's parts are refused below
    if not one_alone and not all(isinstance(one, Real) for one in several):
        raise TypeError(f"[Loader.split] share must be a number such as 0.8, or several, got {share!r}")
    shares = [float(share), 1.0 - float(share)] if one_alone else [float(one) for one in several]
    if not shares or not all(0 < one < 1 for one in shares) or sum(shares) > 1 + 1e-9:
        raise ValueError(f"[Loader.split] shares must be above 0 and below 1, and add up to at most 1, got {share}")
    places = [round(min(float(one), 1.0) * samples) for one in np.cumsum([0.0, *shares])]
    parts = []
    for number, (begin, end) in enumerate(pairwise(places)):
        if begin == end:
            raise ValueError(
                f"[Loader.split] part {number} is empty: {shares[number]:.3g} of {samples} samples; each part needs one at "
                "least"
            )
        parts.append(Part(begin, end, False, shuffle, seed))
    return parts


def folds(samples: int, count: Any, *, seed: Any, shuffle: Any) -> list[tuple[Part, Part]]:
    """Make pairs (train, test); every sample is in exactly one test. ``ValueError`` for more folds than samples."""
    seed, shuffle = whole("Loader.folds", "seed", seed, 0, _MOST_SEED), flag("Loader.folds", "shuffle", shuffle)
    count = whole("Loader.folds", "count", count, 2)
    if count > samples:
        raise ValueError(f"[Loader.folds] {count} folds of {samples} samples: a fold would be empty")
    places = [samples * number // count for number in range(count + 1)]
    return [
        (Part(begin, end, True, shuffle, seed), Part(begin, end, False, shuffle, seed))
        for begin, end in pairwise(places)
    ]
