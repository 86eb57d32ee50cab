"""Sources that lie in files."""

from __future__ import annotations

import math
import os
import stat
from typing import Any

import numpy as np

from gradring import _core
from gradring.arguments import whole
from gradring.sources._arrays import array_column
from gradring.sources._base import Source
from gradring.sources._fields import Field

__all__ = ["Idx", "Npy", "RawRecords"]

_Path = str | os.PathLike[str]


def _checked_path(kind: str, path: _Path) -> str:
    """The absolute path. Raises if messages could not contain it."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"[{kind}] path must be a string or a path, got {type(path).__name__}")
    absolute = os.path.abspath(os.fsdecode(path))
    try:
        absolute.encode()
    except UnicodeEncodeError:
        raise ValueError(f"[{kind}] the path {absolute!r} is not valid UTF-8: rename the file") from None
    return absolute


class Npy(Source):
    """A ``.npy`` file (format versions 1 to 3), read natively: its first axis is the samples.

    C or Fortran order, any dtype but object, either byte order. A structured dtype becomes a dict of its fields. The
    header is checked against the file before anything is allocated, and nothing in it is evaluated. A file that is cut
    short while it is read raises ``OSError`` with its path and the offset. Raises ``OSError`` if it cannot be opened,
    ``ValueError`` if it is damaged.

    >>> import numpy as np, tempfile, os
    >>> from gradring.sources import open_source
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npy")
    >>> np.save(path, np.arange(12, dtype=np.float32).reshape(4, 3))
    >>> open_source(Npy(path)).read([2])
    array([[6., 7., 8.]], dtype=float32)
    """

    def __init__(self, path: _Path) -> None:
        self.path = _checked_path(type(self).__name__, path)

    def columns(self, name: str) -> tuple[bool, list[tuple[Field, Any]]]:
        try:
            structured, described = _core.npy_columns(self.path, name)
            return structured, [
                (Field(field, np.dtype(descr), tuple(shape)), column) for field, descr, shape, column in described
            ]
        except (TypeError, UnicodeDecodeError) as error:  # a dtype that this NumPy lacks, or a name that is no text
            raise ValueError(f"[loader] {self.path} has a damaged .npy header: {error}") from error


class Idx(Source):
    """An IDX file (MNIST's format), plain or gzipped: its first axis is the samples.

    A plain one is read where it lies, like ``Npy``; a gzipped one is unpacked into memory when it is opened, up to
    the size in its header. Errors as for ``Npy``.
    """

    def __init__(self, path: _Path) -> None:
        self.path = _checked_path(type(self).__name__, path)

    def columns(self, name: str) -> tuple[bool, list[tuple[Field, Any]]]:
        if not stat.S_ISREG(os.stat(self.path).st_mode):
            raise OSError(f"[loader] cannot read {self.path}: it is no regular file")
        with open(self.path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        if zipped:
            from gradring.datasets.idx import read_idx

            return False, [array_column(name, read_idx(self.path))]
        _, described = _core.idx_columns(self.path, name)
        return False, [
            (Field(field, np.dtype(descr), tuple(shape)), column) for field, descr, shape, column in described
        ]


class RawRecords(Source):
    """A file of fixed-size records one after the other, without a header.

    A record is an array of ``shape`` and ``dtype``; a structured dtype (with a shape of ``()``) becomes a dict of its
    fields. ``offset`` bytes at the beginning are skipped; the rest must be a whole number of records.

    >>> import numpy as np, tempfile, os
    >>> from gradring.sources import open_source
    >>> path = os.path.join(tempfile.mkdtemp(), "x.bin")
    >>> np.arange(6, dtype=np.int16).tofile(path)
    >>> open_source(RawRecords(path, np.int16, (2,))).read([2, 0])
    array([[4, 5],
           [0, 1]], dtype=int16)
    """

    def __init__(self, path: _Path, dtype: Any, shape: tuple[int, ...] | int = (), *, offset: int = 0) -> None:
        self.path = _checked_path(type(self).__name__, path)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        extents = shape if isinstance(shape, (tuple, list)) else (shape,)
        self.shape = tuple(whole("RawRecords", "shape", extent, 0) for extent in extents)
        self.offset = whole("RawRecords", "offset", offset, 0)
        if math.prod((self.dtype.itemsize, *self.shape)) >= 2**62:
            raise ValueError(f"[RawRecords] a record of shape {self.shape} is larger than any file")
        if self.dtype.names is not None and self.shape != ():
            raise ValueError(
                f"[RawRecords] a structured dtype is a record of its own: shape must be (), not {self.shape}"
            )

    def columns(self, name: str) -> tuple[bool, list[tuple[Field, Any]]]:
        if self.dtype.subdtype is not None:
            base, inner = self.dtype.subdtype
            return RawRecords(self.path, base, (*self.shape, *inner), offset=self.offset).columns(name)
        structured = self.dtype.names is not None
        fields, offsets = [], []
        if self.dtype.names is not None and self.dtype.fields is not None:
            for part in self.dtype.names:
                dtype, offset = self.dtype.fields[part][:2]
                base, inner = dtype.subdtype if dtype.subdtype is not None else (dtype, ())
                fields.append(Field(part, base, inner))
                offsets.append(offset)
            record = self.dtype.itemsize
        else:
            fields, offsets = [Field(name, self.dtype, self.shape)], [0]
            record = fields[0].row_bytes
        described = [
            (*field.native[:2], field.swapped, field.native[2], offset)
            for field, offset in zip(fields, offsets, strict=True)
        ]
        columns = _core.raw_columns(self.path, described, record, self.offset)
        return structured, list(zip(fields, columns, strict=True))
