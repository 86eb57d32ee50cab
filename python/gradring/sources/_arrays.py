"""Arrays in memory as native columns, and memory maps as columns that read their file."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import _core
from gradring.arrays import as_ndarray
from gradring.sources._fields import Field

__all__ = ["array_column", "as_array"]


def as_array(name: str, value: Any) -> NDArray[Any]:
    """A field's values as an ndarray, without a copy."""
    expected = "an array, the path of a .npy file, a data set with __getitem__ and __len__, or one of gr.sources"
    if isinstance(value, (int, float)):
        raise TypeError(f"[loader] field {name!r} is a {type(value).__name__}: expected {expected}")
    array = as_ndarray("loader", f"field {name!r}", value, expected=expected)
    if array.ndim == 0:
        raise ValueError(
            f"[loader] field {name!r} of the source is a single value, {array}: its first axis must be the samples"
        )
    return array


def array_column(name: str, array: NDArray[Any]) -> tuple[Field, Any]:
    """The field and its native column. Nothing is copied, so later changes of the array take effect."""
    field = Field(name, array.dtype, array.shape[1:])
    _, dtype, shape = field.native
    strides = list(array.strides) + ([] if field.plain else [1])
    place = _place_in_file(array)
    if place is not None:
        path, offset = place
        column = _core.file_column(path, field.native, len(array), offset, strides, field.swapped)
    else:
        address = array.__array_interface__["data"][0]
        column = _core.memory_column(name, dtype, address, len(array), shape, strides, field.swapped, array)
    return field, column


def _place_in_file(array: NDArray[Any]) -> tuple[str, int] | None:
    """The path, and the offset of a memory map's first element, if the file can be read instead of the map.

    Reading it ourselves makes a file that shrinks an error instead of SIGBUS. A copy-on-write map may differ from
    its file, and so does a map whose name now belongs to another file: these are read from memory.
    """
    mapping = getattr(array, "_mmap", None)
    name = getattr(array, "filename", None)
    mode = getattr(array, "mode", None)
    if not isinstance(mapping, mmap.mmap) or not name or mode not in ("r", "r+", "w+") or array.size == 0:
        return None
    if any(stride < 0 for stride in array.strides):
        return None
    begin = np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
    distance = array.__array_interface__["data"][0] - begin
    if not 0 <= distance < len(mapping):
        return None
    try:
        str(name).encode()  # native error messages contain the name
    except UnicodeEncodeError:
        return None
    start = _mapped_from(begin, str(name))
    return None if start is None else (os.fspath(name), start + distance)


def _mapped_from(address: int, path: str) -> int | None:
    """The file offset that is mapped at an address, if the file of that name is what is mapped there."""
    try:
        status = os.stat(path)
        with open("/proc/self/maps") as maps:
            for line in maps:
                bounds, _, offset, _, inode = line.split()[:5]
                begin, end = (int(bound, 16) for bound in bounds.split("-"))
                if begin <= address < end:
                    same = int(inode) == status.st_ino
                    return int(offset, 16) + address - begin if same else None
    except (OSError, ValueError):
        return None
    return None
