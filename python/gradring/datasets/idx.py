"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

The format: two zero bytes, a byte for the type, a byte for the number of dimensions, each dimension as a big-endian
uint32, and then the elements, big-endian, in C order (Yann LeCun's MNIST page, "the IDX file format").
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_idx"]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 8
# Deflate cannot shrink by more than 1032 times, so a header that promises more is refused before anything is allocated
# for it.
_MAX_DEFLATE = 1032


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an IDX file; gzip is recognised by its first bytes, not by the name.

    Returns an array of the file's shape and type in native byte order. A file that is not IDX, is truncated, has bytes
    after its last element, or promises more than it can hold raises ``ValueError`` before memory is allocated for it.
    """
    name = os.fspath(path)
    size = os.path.getsize(name)
    with open(name, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped:
            return _read(raw, name, size)
        try:
            with gzip.GzipFile(fileobj=raw) as file:
                return _read(file, name, size * _MAX_DEFLATE)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"[read_idx] {name} is damaged: {error}") from error


def _read(file: IO[bytes] | gzip.GzipFile, name: str, most: int) -> NDArray[Any]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        raise ValueError(f"[read_idx] {name} is not an IDX file: it begins with {head!r}")
    dtype, ndim = np.dtype(_DTYPES[head[2]]), head[3]
    if not 1 <= ndim <= _MAX_DIMENSIONS:
        raise ValueError(f"[read_idx] {name} says that it has {ndim} dimensions, expected 1 to {_MAX_DIMENSIONS}")
    packed = file.read(4 * ndim)
    if len(packed) < 4 * ndim:
        raise ValueError(f"[read_idx] {name} is truncated: it ends within its header")
    shape = struct.unpack(f">{ndim}I", packed)
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > most:
        raise ValueError(
            f"[read_idx] {name} is truncated or foreign: its header says {shape} of {dtype.name}, {wanted} bytes, "
            f"but such a file can hold at most {most}"
        )
    array = np.empty(shape, dtype)
    got = _fill(file, array.reshape(-1).view(np.uint8).data) if array.size else 0
    if got < wanted:
        raise ValueError(f"[read_idx] {name} is truncated: {got} of {wanted} bytes for {shape} of {dtype.name}")
    if file.read(1):
        raise ValueError(f"[read_idx] {name} is foreign: it goes on after {wanted} bytes for {shape} of {dtype.name}")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _fill(file: IO[bytes] | gzip.GzipFile, view: memoryview) -> int:
    done = 0
    while done < len(view):
        count: int = file.readinto(view[done:])  # type: ignore[union-attr]
        if not count:
            break
        done += count
    return done
