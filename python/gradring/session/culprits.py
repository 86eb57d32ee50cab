"""Finds the sample that caused a native fault, by the user's number of it, and says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import _core
from gradring.session.batch import Bound

__all__ = ["Rows", "as_given", "of_a_batch", "rows_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """The samples of a batch: their numbers for ``called``, which gives each the user's name, and their fields if they can
    be read."""

    numbers: Array
    called: Callable[[int], object]
    fields: tuple[Array, ...]
    unsigned: bool = False  # an id at fault comes from a field of uint64, which cannot be read again

    def bad_number(self, names: Sequence[str], dtype: str = "float64") -> str:
        """A text that says where the first NaN or infinity of these samples is, or the first number that becomes infinite in
        this dtype; empty if there is none."""
        for name, field in zip(names, self.fields, strict=False):
            if field.dtype.kind != "f" or not len(field):
                continue
            rows = field.reshape(len(field), -1)
            bad = np.argwhere(~(np.abs(rows) <= np.finfo(dtype).max))
            if len(bad):
                row, column = map(int, bad[0])
                sample = self.called(int(self.numbers[row]))
                value = rows[row, column]
                beyond = f", which {dtype} cannot hold" if np.isfinite(value) else ""
                return f"{name} of sample {sample} is {value} in column {column}{beyond}"
        return ""

    def told(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The native result with the user's name of the sample that it is about."""
        row, sample = result["row"], result["sample"]
        if sample < 0 and 0 <= row < len(self.numbers):
            sample = int(self.numbers[row])
        value = result.get("value", 0)
        value = value % (1 << 64) if self.unsigned else as_given(value, row, self.fields)
        result = {**result, "value": value}
        return {**result, "sample": self.called(sample) if sample >= 0 else sample}

    def target(self, result: Mapping[str, Any]) -> Any:
        """The target of the sample that the result is about; None where it cannot be read again."""
        row = result["row"]
        return self.fields[-1][row] if self.fields and 0 <= row < len(self.fields[-1]) else None


def as_given(value: int, row: int, fields: Sequence[Array]) -> int:
    """The number that a program has read as ``value``: those of uint64 from 2**63 on it reads as negative ones."""
    given = value % (1 << 64)
    known = (np.asarray(field[row]) for field in fields if field.dtype == np.uint64 and 0 <= row < len(field))
    return given if value < 0 and any((part == np.uint64(given)).any() for part in known) else value


def rows_of(bound: Bound, result: Mapping[str, Any], order: Mapping[str, Any]) -> Rows:
    """The batch that a result is about. ``order`` is that of arrays: ``shuffle``, ``seed``, ``epoch``, ``world_size``."""
    first, count, samples = result["position"], result["rows"], len(bound)
    if bound.feed is not None:
        numbers, arrays = bound.feed.read_again(first, count)
        if arrays is not None:
            return Rows(numbers, bound.feed.called, tuple(arrays[slot] for slot in bound.slots))
        whole = {field.dtype for field in bound.fields[:-1] if field.dtype.kind in "iu"}
        return Rows(numbers, bound.feed.called, (), unsigned=whole == {np.dtype(np.uint64)})
    places = (first + np.arange(count) * order.get("world_size", 1)) % samples
    if order.get("shuffle"):
        permutation = _core.Permutation(samples, order.get("seed", 0), order.get("epoch", 0))
        places = np.array([permutation(int(place)) for place in places], np.int64)
    return Rows(places, int, tuple(np.asarray(_on_host(array)[places]) for array in bound.arrays))


def _on_host(array: Any) -> Any:
    return array.numpy() if hasattr(array, "__cuda_array_interface__") else array


def of_a_batch(rows: Rows) -> Rows:
    """For one of many batches that Python makes: its samples have no other numbers than those of its rows."""
    return replace(rows, called=lambda sample: f"{sample} of that batch")
