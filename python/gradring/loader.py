"""Batches out of arrays in memory."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Loader"]


class Loader:
    """One epoch of batches at a time, in order or shuffled, from an array or a tuple, list or dict of arrays.

    An array's first axis counts the samples. Every array may be of any dtype and any strides, or a memory map, or the
    path of an ``.npy`` file, which is then mapped. Iterating gives batches of the same form: an array, a tuple or a
    dict. The arrays are read while iterating, never changed.

    ``shuffle`` orders the samples by a keyed permutation, a pure function of the number of samples, ``seed`` and the
    epoch, so every epoch has an order of its own and any epoch can be had again. ``Trainer.fit`` takes batches in the
    same order, natively. ``drop_last`` leaves out the last batch where it is smaller than the others.

    >>> loader = Loader((np.arange(10.0), np.arange(10)), batch_size=4)
    >>> [y.tolist() for x, y in loader]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> len(loader), loader.epoch
    (3, 1)
    """

    def __init__(
        self, source: Any, batch_size: int, *, shuffle: bool = False, seed: int = 0, drop_last: bool = False
    ) -> None:
        self._names, self.arrays = _arrays(source)
        self._single = not isinstance(source, (tuple, list, Mapping))
        self.samples = len(self.arrays[0])
        self.batch_size = _at_least("batch_size", batch_size, 1)
        self.seed = _at_least("seed", seed, 0)
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        self.epoch = 0
        if self.drop_last and self.samples < self.batch_size:
            raise ValueError(f"[Loader] drop_last leaves nothing: {self.samples} samples, batch_size {self.batch_size}")

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        whole, rest = divmod(self.samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next epoch. Without it, each complete iteration is followed by the next epoch."""
        self.epoch = _at_least("epoch", epoch, 0)

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands."""
        return {"epoch": self.epoch, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.seed, self.epoch = _at_least("seed", state["seed"], 0), _at_least("epoch", state["epoch"], 0)

    def order(self, first: int = 0, count: int | None = None) -> NDArray[np.int64]:
        """The samples' numbers in this epoch's order, from position ``first`` on."""
        count = self.samples - first if count is None else count
        if not self.shuffle:
            return np.arange(first, first + count)
        from gradring import _core

        indices: NDArray[np.int64] = _core.Permutation(self.samples, self.seed, self.epoch).range(first, count)
        return indices

    def batches(self, start: int = 0) -> Iterator[Any]:
        """This epoch's batches from number ``start`` on; the epoch stays as it is."""
        for batch in range(start, len(self)):
            first = batch * self.batch_size
            count = min(self.batch_size, self.samples - first)
            if self.shuffle:
                picked = self.order(first, count)
                parts = tuple(np.take(array, picked, axis=0) for array in self.arrays)
            else:
                parts = tuple(np.array(array[first : first + count]) for array in self.arrays)
            yield parts[0] if self._single else dict(zip(self._names, parts, strict=True)) if self._names else parts

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch
        yield from self.batches()
        self.epoch = epoch + 1

    def __repr__(self) -> str:
        shapes = ", ".join(f"{array.dtype}{list(array.shape)}" for array in self.arrays)
        return f"Loader({shapes}, batch_size={self.batch_size}, shuffle={self.shuffle}, seed={self.seed})"


def as_source(caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int) -> Any:
    """A loader or another iterable of batches as it is; a tuple, list or dict of arrays as a loader over them."""
    batches = isinstance(data, list) and data and isinstance(data[0], (tuple, list, Mapping))
    if isinstance(data, (tuple, list, Mapping)) and not batches:
        return Loader(data, batch_size, shuffle=shuffle, seed=seed)
    if isinstance(data, np.ndarray) or not isinstance(data, Iterable):
        raise TypeError(
            f"[{caller}] data must be a Loader, arrays (x, y) or an iterable of batches, got {type(data).__name__}"
        )
    if isinstance(data, Iterator):
        raise TypeError(f"[{caller}] data is an iterator, which can be read only once; give what it was made from")
    return data


def _arrays(source: Any) -> tuple[tuple[str, ...], tuple[NDArray[Any], ...]]:
    """Names (of a dict) and arrays, checked: same length, at least one sample, of numbers."""
    if isinstance(source, Mapping):
        names, values = tuple(source), tuple(source.values())
    else:
        names, values = (), tuple(source) if isinstance(source, (tuple, list)) else (source,)
    if not values:
        raise ValueError("[Loader] source has no array")
    labels = [repr(name) for name in names] if names else [f"source[{i}]" for i in range(len(values))]
    arrays = tuple(_array(label, value) for label, value in zip(labels, values, strict=True))
    for label, array in zip(labels, arrays, strict=True):
        if len(array) != len(arrays[0]):
            raise ValueError(f"[Loader] {labels[0]} has {len(arrays[0])} samples, {label} has {len(array)}")
    if not len(arrays[0]):
        raise ValueError(f"[Loader] {labels[0]} is {arrays[0].shape}: there must be at least one sample")
    return names, arrays


def _array(label: str, value: Any) -> NDArray[Any]:
    if isinstance(value, (str, os.PathLike)):
        return _array(label, load_npy(label, value))
    elif isinstance(value, (int, float, complex, bool)) or value is None:
        raise TypeError(f"[Loader] {label} must be an array, got {type(value).__name__}")
    elif isinstance(value, (list, tuple)):
        raise TypeError(f"[Loader] {label} must be an array, got {type(value).__name__}; np.asarray makes one of it")
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" and array.dtype.name not in ("bfloat16",):
        raise TypeError(f"[Loader] {label} must be an array of numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"[Loader] {label} has no axis of samples: its shape is ()")
    return array


def load_npy(label: str, path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map an ``.npy`` file; what is none raises ``ValueError`` with its name."""
    try:
        # Not np.load, which also opens zip files and leaves a damaged one open.
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        name = os.fspath(path)
        raise ValueError(f"[Loader] {label}: {name} is not an .npy file of numbers, or is damaged: {error}") from error


def _at_least(argument: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"[Loader] {argument} must be an int, got {type(value).__name__}") from None
    if isinstance(value, bool) or number < least:
        raise ValueError(f"[Loader] {argument} must be at least {least}, got {value}")
    return number
