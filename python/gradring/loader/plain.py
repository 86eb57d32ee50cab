"""The interface of a loader that the trainer uses, and loaders over data that is not one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.arrays import NATIVE_DTYPES, as_numbers, is_array_like
from gradring.files import reading
from gradring.loader.loader import Loader
from gradring.sources import Source, is_map_style

__all__ = ["as_source", "load_npy"]


def as_source(caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int) -> Any:
    """A loader or another iterable of batches as it is; a tuple, list or dict of arrays, a map-style data set, or one of
    gr.sources, as a loader over it."""
    batches = isinstance(data, list) and data and _is_batch(data[0])
    if isinstance(data, (tuple, list, Mapping)) and not batches:
        return Loader(_computable(caller, data), batch_size, shuffle=shuffle, seed=seed)
    if isinstance(data, Source) or (is_map_style(data) and not isinstance(data, Iterable)):
        return Loader(data, batch_size, shuffle=shuffle, seed=seed)
    if is_array_like(data) or isinstance(data, (str, bytes, os.PathLike)) or not isinstance(data, Iterable):
        raise TypeError(
            f"[{caller}] data must be a Loader, arrays (x, y), a data set or an iterable of batches, got "
            f"{type(data).__name__}"
        )
    if isinstance(data, Iterator):
        raise TypeError(f"[{caller}] data is an iterator, which can be read only once; give what it was made from")
    return data


def _is_batch(first: Any) -> bool:
    """Whether a list whose first element is ``first`` has batches: a pair or dict of arrays, and no list of numbers."""
    if isinstance(first, Mapping):
        return True
    return isinstance(first, (tuple, list)) and len(first) > 0 and not isinstance(first[0], (int, float, list, tuple))


def _computable(caller: str, data: Any) -> Any:
    """The fields as arrays, from which the step's own threads gather. Other objects are converted once."""

    def field(name: Any, part: Any) -> Any:
        if isinstance(part, (Source, str, os.PathLike)):
            return part
        array = as_numbers(caller, f"field {name!r}", part)
        if isinstance(part, np.memmap):  # it may be larger than memory, so it is read and cast batch by batch
            return array
        return array if array.dtype.name in NATIVE_DTYPES else array.astype(np.float32)

    if isinstance(data, Mapping):
        return {name: field(name, part) for name, part in data.items()}
    return tuple(field(number, part) for number, part in enumerate(data))


def load_npy(label: str, path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map an ``.npy`` file. Another file raises ``ValueError`` with its name."""
    kind = os.fspath(path).rpartition(".")[2].lower()
    if kind in ("npz", "csv", "tsv", "txt"):
        read = (
            "numpy.load(path)['name']"
            if kind == "npz"
            else "numpy.loadtxt(path, delimiter=',') or pandas.read_csv(path)"
        )
        raise ValueError(f"[Loader] {label}: {os.fspath(path)} is a .{kind} file: read it with {read}, save it as .npy")
    with reading(label, path):
        pass  # only for the error of a path that cannot be read
    try:
        # Do not use np.load, which also opens zip files and leaves a damaged one open.
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        name = os.fspath(path)
        raise ValueError(f"[Loader] {label}: {name} is not an .npy file of numbers, or is damaged: {error}") from error
