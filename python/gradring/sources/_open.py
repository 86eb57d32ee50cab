"""Opens everything that a loader accepts as a source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradring.arrays import is_array_like
from gradring.sources._arrays import array_column, as_array
from gradring.sources._base import Source
from gradring.sources._callable import Callable
from gradring.sources._fields import Field, named_first
from gradring.sources._files import Npy
from gradring.sources._opened import Opened, from_columns

__all__ = ["columns_of", "is_map_style", "map_style_source", "open_source", "require_no_paths"]


def open_source(source: Any) -> Opened:
    """Open what ``gr.Loader`` accepts as a source.

    An array (of any strides, or a memory map), the path of a ``.npy`` file, one of ``gr.sources``, or a tuple, list or
    dict of those; or a map-style data set (``__getitem__`` and ``__len__``). A structured array, or file, becomes a dict
    of its fields. Raises ``TypeError`` for anything else and for dtype object, ``ValueError`` for an empty source or
    unequal lengths, ``OSError`` for files that cannot be read.
    """
    if isinstance(source, Source):
        return source.opened()
    made = map_style_source(source)
    if made is not None:
        return made.opened()
    kind, columns = columns_of(source, "0")
    return from_columns(columns, kind)


def map_style_source(source: Any) -> Callable | None:
    """The source if it makes samples one by one in Python: a ``Callable``, or a data set converted to one."""
    if isinstance(source, Source):
        function: Callable | None = source.function()
        return function
    return Callable(source.__getitem__, len(source)) if is_map_style(source) else None


def columns_of(source: Any, name: str) -> tuple[str, list[tuple[Field, Any]]]:
    """The kind of a source that native columns can hold, and its columns. ``name`` is given to a field without a name."""
    if isinstance(source, Mapping):
        parts = {str(name): part for name, part in source.items()}
        if len(parts) < len(source):
            raise ValueError(f"[loader] two keys of the source have the same name: {[*source]}")
        return _compound("dict", named_first(parts))
    if isinstance(source, (tuple, list)):
        if isinstance(source, list):
            require_no_paths("loader", source)
            if source and all(isinstance(part, (list, tuple)) and part and _is_number(part[0]) for part in source):
                raise TypeError(
                    f"[loader] a list of {len(source)} lists of numbers: give the rows of one array as numpy.array(rows), and "
                    "the fields of the samples as a tuple or a dict"
                )
        kind = "tuple" if isinstance(source, tuple) else "list"
        return _compound(kind, {str(i): part for i, part in enumerate(source)})
    if isinstance(source, Source):
        kind, columns = source.all_columns(name)
    else:
        structured, columns = _columns(name, source)
        kind = "dict" if structured else "array"
    if kind == "dict":
        order = list(named_first({field.name: None for field, _ in columns}))
        columns.sort(key=lambda column: order.index(column[0].name))
    return kind, columns


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.generic))


def require_no_paths(where: str, parts: list[Any]) -> None:
    """``TypeError`` for a list of paths, which may be parts of one array or the files of several."""
    if parts and all(isinstance(part, (str, os.PathLike)) and str(part).endswith(".npy") for part in parts):
        raise TypeError(
            f"[{where}] a list of {len(parts)} paths: parts of one array go into gr.sources.Concat([...]), and the files of "
            "several fields into a tuple or a dict"
        )


def is_map_style(source: Any) -> bool:
    """The interface of a data set: samples by number, and how many there are, like PyTorch's Dataset."""
    if isinstance(source, (str, bytes, Mapping, list, tuple, os.PathLike)) or is_array_like(source):
        return False
    return hasattr(type(source), "__getitem__") and hasattr(type(source), "__len__")


def _compound(kind: str, parts: dict[str, Any]) -> tuple[str, list[tuple[Field, Any]]]:
    if not parts:
        raise ValueError(f"[loader] the source is an empty {kind}")
    columns = []
    for name, part in parts.items():
        structured, found = _columns(name, part)
        if structured:
            raise TypeError(
                f"[loader] field {name!r} holds records ({', '.join(field.name for field, _ in found)}): "
                "give it alone, or its fields one by one"
            )
        columns += found
    return kind, columns


def _other_file(path: str) -> str:
    if path.endswith(".npz"):
        return "an .npz file holds several arrays; give those that are meant, numpy.load(path)['name']"
    if path.endswith((".csv", ".tsv", ".txt")):
        return "read a table with numpy.loadtxt(path, delimiter=',') or pandas.read_csv(path), and give its columns"
    if path.endswith((".parquet", ".feather", ".arrow", ".xlsx")):
        return "read the table with pandas, and give its columns"
    if path.endswith((".h5", ".hdf5")):
        return "open it with h5py, and read its samples in gr.sources.Callable(fn, length)"
    return "say what it is with gr.sources.Npy, Idx or RawRecords"


def _columns(name: str, part: Any) -> tuple[bool, list[tuple[Field, Any]]]:
    if isinstance(part, Source):
        return part.columns(name)
    if isinstance(part, (str, os.PathLike)):
        path = os.fspath(part)
        if not str(path).endswith(".npy"):
            raise ValueError(f"[loader] {path} does not end in .npy: {_other_file(str(path))}")
        return Npy(path).columns(name)
    array = as_array(name, part)
    if array.dtype.names is not None:
        records = array.view(np.ndarray) if type(array) is np.recarray else array
        return True, [array_column(inner, records[inner]) for inner in array.dtype.names]
    return False, [array_column(name, array)]
