"""The samples of a loader, read beside its passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import _core, arguments
from gradring.loader.pipelines import Pipelines
from gradring.loader.position import LoaderPosition
from gradring.sources import Opened
from gradring.sources._concat import named_sample, one_field
from gradring.sources._open import open_source

__all__ = ["LoaderSamples"]


class LoaderSamples(LoaderPosition):
    """The part of a ``Loader`` that reads samples by their numbers."""

    rank: int
    world_size: int
    _source: Any
    _transforms: Any
    _opened: Opened
    _pipelines: Pipelines
    _skip: bool

    def _read_again(
        self, in_order: bool, stride: int, position: int, rows: int
    ) -> tuple[NDArray[Any], Sequence[NDArray[Any]] | None]:
        places = (position + np.arange(rows) * stride) % self.samples
        if self.shuffle and not in_order:
            permutation = _core.Permutation(self.samples, self.seed, self.epoch)
            places = np.array([permutation(int(place)) for place in places], np.int64)
        if self._opened.python or self._skip:  # a function of the user's; rows that others have taken
            return places, None
        arrays = [np.empty((rows, *field.shape), field.dtype) for field in self._opened.fields]
        try:
            self._opened.native.read_into(places, arrays, self.seed, self.epoch)
        except (OSError, ValueError):  # it is for an error, which must not be hidden by another one
            return places, None
        return places, arrays

    def require_open(self) -> None:
        """Raise ``LoaderError`` if the loader was closed."""
        self._pipelines.check()

    @property
    def arrays(self) -> tuple[NDArray[Any], ...] | None:
        """The source's arrays, if it has only arrays in memory and nothing changes them on the way to a batch; else None."""
        self.require_open()
        parts = tuple(self._source.values()) if isinstance(self._source, Mapping) else self._source
        parts = parts if isinstance(parts, (tuple, list)) else (parts,)
        plain = all(isinstance(part, np.ndarray) and not isinstance(part, np.memmap) for part in parts)
        plain = plain and all(field.plain for field in self._opened.fields) and self._opened.kind != "dict"
        if not plain or self._transforms or self._selections:
            return None
        return tuple(parts)

    @property
    def computable(self) -> bool:
        """Whether every field has a dtype that native code reads as numbers (complex numbers do not)."""
        return all(field.plain for field in self._opened.fields)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of a dict source's fields, else None."""
        return tuple(field.name for field in self._opened.fields) if self._opened.kind == "dict" else None

    def samples_in_order(self, rows: int) -> Iterator[NDArray[Any]]:
        """The field "x", or the first one, of this rank's samples in their own order, ``rows`` at a time."""
        names = [field.name for field in self._opened.fields]
        index = names.index("x") if "x" in names else 0
        for arrays in self.fields_in_order(rows):
            yield arrays[index]

    def fields_in_order(self, rows: int) -> Iterator[list[NDArray[Any]]]:
        """All fields of this rank's samples in their own order, ``rows`` at a time."""
        mine = np.arange(self.rank, self.samples, self.world_size)
        for first in range(0, len(mine), rows):
            wanted = mine[first : first + rows]
            arrays = [np.empty((len(wanted), *field.shape), field.dtype) for field in self._opened.fields]
            self._opened.native.read_into(wanted, arrays, self.seed, self.epoch)
            yield arrays

    def column(self, field: str | int, rows: int) -> Iterator[NDArray[Any]] | None:
        """One field of all samples (of every rank) in their own order, ``rows`` at a time; None where a function of the user's
        makes the samples."""
        opened, place = self._opened, field
        # A field that no transform changes is read alone, so that no function of the other fields runs.
        alone = None if self._transformed(field) else one_field(self._source, field)
        if alone is not None:
            opened, place = open_source(alone).selected(self._selections), 0
        if opened.python:
            return None
        names = [one.name for one in opened.fields]
        index = names.index(place) if isinstance(place, str) else place
        return self._column(opened, index, rows)

    def _transformed(self, field: str | int) -> bool:
        if isinstance(self._transforms, Mapping):
            return field in self._transforms or str(field) in self._transforms
        return bool(self._transforms)

    def _column(self, opened: Opened, index: int, rows: int) -> Iterator[NDArray[Any]]:
        for first in range(0, self.samples, rows):
            wanted = np.arange(first, min(first + rows, self.samples))
            arrays = [np.empty((len(wanted), *field.shape), field.dtype) for field in opened.fields]
            opened.native.read_into(wanted, arrays, self.seed, self.epoch)
            yield arrays[index]

    def order(self, first: int = 0, count: int | None = None) -> NDArray[np.int64]:
        """The samples' numbers in this epoch's order (of all ranks), from position ``first`` on."""
        first = arguments.whole("Loader", "first", first, 0, self.samples)
        count = (
            self.samples - first
            if count is None
            else arguments.whole("Loader", "count", count, 0, self.samples - first)
        )
        places: NDArray[np.int64] = np.arange(first, first + count)
        if self.shuffle:
            places = _core.Permutation(self.samples, self.seed, self.epoch).range(first, count)
        numbers: NDArray[np.int64] = self._opened.native.numbers(places)
        return numbers

    @property
    def indices(self) -> NDArray[np.int64]:
        """The source's numbers of this loader's samples, in their own order."""
        numbers: NDArray[np.int64] = self._opened.native.numbers(np.arange(self.samples))
        return numbers

    def _number(self, sample: int) -> int:
        """The number that the source has for a sample of this loader."""
        return int(self._opened.native.numbers([sample])[0])

    def called(self, sample: int) -> object:
        """What the user calls a sample of this loader: its number in the source, and in the part of a ``Concat``."""
        return named_sample(self._source, self._number(sample))
