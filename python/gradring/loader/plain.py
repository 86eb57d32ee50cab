"""The interface of a loader that the trainer uses, and loaders over data that is not one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import whole
from gradring.arrays import NATIVE_DTYPES, as_numbers, is_array_like
from gradring.files import reading
from gradring.loader.loader import Loader
from gradring.sources import Source, is_map_style, require_no_paths

__all__ = ["Stream", "as_source", "is_batches", "load_npy"]


class Stream:
    """An iterator as a source: each pass takes the batches that come next, and nothing that has been read comes again."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return self._batches


def as_source(
    caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int, names: Sequence[str] = ()
) -> Any:
    """A loader or another iterable of batches as it is; a tuple, list or dict of arrays, a map-style data set, or one of
    gr.sources, as a loader over it. ``names`` are those of the fields, for errors about fields that have no names."""
    batch_size = whole(caller, "batch_size", batch_size, 1)
    if isinstance(data, np.ndarray) and data.dtype.names is not None:  # records, whose fields have names
        data = {name: data[name] for name in data.dtype.names}
    if isinstance(data, (tuple, list, Mapping)) and not is_batches(data):
        return Loader(_computable(caller, data, names), batch_size, shuffle=shuffle, seed=seed)
    if isinstance(data, Source) or (is_map_style(data) and not isinstance(data, Iterable)):
        return Loader(data, batch_size, shuffle=shuffle, seed=seed)
    if is_array_like(data) or isinstance(data, (str, bytes, os.PathLike)) or not isinstance(data, Iterable):
        raise TypeError(
            f"[{caller}] data must be a Loader, arrays (x, y), a data set or an iterable of batches, got "
            f"{type(data).__name__}"
        )
    if isinstance(data, Iterator):
        raise TypeError(
            f"[{caller}] data is an iterator, which can be read only once: give what it was made from, or say how many of its "
            "batches are an epoch, fit(..., steps_per_epoch=...)"
        )
    return data


def is_batches(data: Any) -> bool:
    """Whether a list has batches, pairs or dicts of arrays, and not the fields or rows of one array."""
    if not isinstance(data, list) or not data:
        return False
    first = data[0]
    if isinstance(first, Mapping):
        return True
    inner = first[0] if isinstance(first, (tuple, list)) and len(first) > 0 else 0
    return not isinstance(inner, (int, float, np.generic, list, tuple))


def _computable(caller: str, data: Any, names: Sequence[str]) -> Any:
    """The fields as arrays of equal length, from which the step's own threads gather. Other objects are converted once."""
    lengths: dict[str, int] = {}

    def field(name: Any, part: Any) -> Any:
        if isinstance(part, (Source, str, os.PathLike)):
            return part
        label = names[name] if isinstance(name, int) and name < len(names) else f"field {name!r}"
        array = as_numbers(caller, label, part)
        first, length = next(iter(lengths.items()), (label, len(array) if array.ndim else 0))
        if array.ndim and len(array) != length:
            raise ValueError(f"[{caller}] {first} has {length} samples, {label} has {len(array)}: must be equal")
        if array.ndim:
            lengths.setdefault(label, len(array))
        if isinstance(part, np.memmap):  # it may be larger than memory, so it is read and cast batch by batch
            return array
        return array if array.dtype.name in NATIVE_DTYPES else array.astype(np.float32)

    if isinstance(data, Mapping):
        return {name: field(name, part) for name, part in data.items()}
    if isinstance(data, list):
        require_no_paths(caller, data)
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
