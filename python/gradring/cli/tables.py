"""Arrays from files: ``.npy`` and ``.npz`` of NumPy, and ``.csv``. Large ones stay on the disk."""

from __future__ import annotations

import csv
import io
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradring.files import reading
from gradring.loader import load_npy

__all__ = ["Table", "column_names", "has_member", "labels_of_file", "read_array", "read_table", "typed"]

Array = NDArray[Any]
_CHUNK = 4096  # rows of a table that are in memory at a time
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?"))


class Table(NamedTuple):
    """The numbers of a file, (N, ...); the target column, if one was requested; and, if the file has names, those of the
    columns that were used and those that were not."""

    x: Array
    target: Array | None
    names: tuple[str, ...]
    unused: tuple[str, ...]


def read_array(command: str, path: Path, member: str) -> Array:
    """The array of an ``.npy`` file, mapped, or of an ``.npz`` file: the one called ``member``, or the only one."""
    array = _member(command, path, member) if path.suffix.lower() == ".npz" else load_npy(command, path)
    if array.ndim == 0 or not array.size:
        raise ValueError(f"[{command}] {path} is {array.shape}: there must be at least one sample")
    return array


def _member(command: str, path: Path, member: str) -> Array:
    # Open the file here, because NumPy leaves a damaged file open.
    with reading(command, path) as opened:
        try:
            file = np.load(opened, allow_pickle=False)
            names = list(file.files)
            found = member if member in names else names[0] if len(names) == 1 else None
            array: Array | None = None if found is None else file[found]
        except MemoryError:
            raise
        except Exception as error:  # zipfile and its codecs raise many kinds of exceptions for damaged files
            raise ValueError(f"[{command}] {path} is not an .npz file of numbers, or is damaged: {error}") from error
    if array is None:
        raise ValueError(f"[{command}] {path} has the arrays {', '.join(names)}, and none is called {member!r}")
    return array


def has_member(path: Path, member: str) -> bool:
    """Whether this is an ``.npz`` file with such an array."""
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return f"{member}.npy" in file.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False  # read_array raises the error that explains what is wrong


def read_table(command: str, path: Path, target: str | None, wanted: Sequence[str] = ()) -> Table:
    """The numbers of a ``.csv`` file, whose first line may have the names of the columns.

    They are written row by row to a nameless file on the disk, which is mapped: only a few thousand rows are in memory at a
    time. ``target`` selects one column, of numbers or texts, by its name or by its number from 1, and removes it from the
    rest. If the file has names, only the columns ``wanted`` are read, in that order.
    """
    names, rows = _rows(command, path)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"[{command}] {path} has no rows: there must be at least one sample")
    columns = names or [f"column {number}" for number in range(1, len(first[1]) + 1)]
    chosen = None if target is None else _column(command, path, target, names, len(columns))
    places = [place for place in range(len(columns)) if place != chosen]
    twice = sorted({name for place in places if (name := columns[place]) in columns[:place]})
    if twice and not wanted:
        raise ValueError(f"[{command}] {path} has two columns {twice[0]!r}: give each a name of its own")
    if wanted and names is not None:
        places = _places(command, path, names, wanted)
    taken: list[str] = []
    count = 0
    with tempfile.TemporaryFile() as file:
        chunk: list[list[float]] = []
        for line, cells in _chain(first, rows):
            if len(cells) != len(columns):
                raise ValueError(f"[{command}] {path}, line {line}: {len(cells)} cells, expected {len(columns)}")
            if chosen is not None:
                taken.append(_present(command, path, line, columns[chosen], cells[chosen]))
            chunk.append([_number(command, path, line, columns[place], cells[place]) for place in places])
            count += 1
            if len(chunk) == _CHUNK:
                file.write(np.asarray(chunk, np.float64).tobytes())
                chunk = []
        file.write(np.asarray(chunk, np.float64).tobytes())
        file.flush()
        if not places:
            raise ValueError(f"[{command}] {path} has no column beside the target")
        x: Array = np.memmap(file, np.float64, "r", shape=(count, len(places)))
    kept = tuple(names[place] for place in places) if names is not None else ()
    unused = tuple(name for place, name in enumerate(names or ()) if place not in places and place != chosen)
    return Table(x, None if chosen is None else typed(np.asarray(taken)), kept, unused)


def column_names(command: str, path: Path) -> list[str] | None:
    """The names of the columns of a ``.csv`` file, if its first line has them."""
    return _rows(command, path)[0]


def _places(command: str, path: Path, names: list[str], wanted: Sequence[str]) -> list[int]:
    """The positions of the columns with these names."""
    missing = [name for name in wanted if name not in names]
    twice = sorted({name for name in wanted if names.count(name) > 1})
    if missing or twice:
        what = f"has no column {missing[0]!r}" if missing else f"has two columns {twice[0]!r}"
        raise ValueError(
            f"[{command}] {path} {what}; the model was trained on the columns {', '.join(wanted[:20])}, in any order"
        )
    return [names.index(name) for name in wanted]


def _chain(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _rows(command: str, path: Path) -> tuple[list[str] | None, Iterator[tuple[int, list[str]]]]:
    """The names of the columns, if the first line has them, and (line, cells) of each row."""

    def rows() -> Iterator[tuple[int, list[str]]]:
        with reading(command, path) as opened, io.TextIOWrapper(opened, "utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            try:
                for cells in reader:
                    if cells:
                        yield reader.line_num, [cell.strip() for cell in cells]
            except (csv.Error, UnicodeDecodeError) as error:
                raise _unreadable(command, path, reader.line_num + 1, error) from error

    found = rows()
    first = next(found, None)
    if first is None:
        raise ValueError(f"[{command}] {path} is empty: there must be at least one sample")
    # A first line without a single number has the names. If it has numbers too, its texts are cells of text columns.
    if not any(_is_number(cell) for cell in first[1]):
        return first[1], found
    return None, _chain(first, found)


def _unreadable(command: str, path: Path, line: int, error: Exception) -> ValueError:
    """The error for a line that is no text, or no row of a table."""
    why = str(error)
    if isinstance(error, UnicodeDecodeError):
        why = f"byte {error.object[error.start]:#04x} is no UTF-8: save the table as UTF-8 text"
    return ValueError(f"[{command}] {path}, line {line}: {why}")


def labels_of_file(command: str, path: Path, samples: int) -> Array:
    """The labels or targets of a file. If a ``.csv`` has one line more than there are samples, the first line has the
    names."""
    if path.suffix.lower() != ".csv":
        return read_array(command, path, "y")
    with reading(command, path) as opened, io.TextIOWrapper(opened, "utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
        except (csv.Error, UnicodeDecodeError) as error:
            raise _unreadable(command, path, reader.line_num + 1, error) from error
    if len(lines) == samples + 1:
        del lines[0]
    if not lines:
        raise ValueError(f"[{command}] {path} is empty: there must be at least one label")
    width = len(lines[0][1])
    for line, row in lines:
        if len(row) != width:
            raise ValueError(f"[{command}] {path}, line {line}: {len(row)} cells, expected {width}")
    cells = [_present(command, path, line, "y", cell) for line, row in lines for cell in row]
    array = typed(np.asarray(cells))
    return array if width == 1 else array.reshape(len(lines), -1)


# A zero before other digits makes it a text: "007" is a name, and a number would lose its zeros.
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_REAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)


def typed(texts: Array) -> Array:
    """Convert texts to whole numbers or floats, if all are numbers and the conversion loses nothing.

    >>> typed(np.array(["1", "-2"])), typed(np.array(["1", "2.5"]))
    (array([ 1, -2]), array([1. , 2.5]))
    >>> typed(np.array(["007", "12"])).tolist()
    ['007', '12']
    """
    for dtype, pattern in ((np.int64, _WHOLE), (np.float64, _REAL)):
        if all(pattern.fullmatch(text) for text in texts.tolist()):
            try:
                return texts.astype(dtype)
            except (ValueError, OverflowError):  # a whole number beyond 64 bits
                continue
    return texts


def _column(command: str, path: Path, target: str, names: list[str] | None, count: int) -> int:
    if names is not None and names.count(target) > 1:
        raise ValueError(f"[{command}] {path} has two columns {target!r}: give the number of one, from 1 to {count}")
    if names is not None and target in names:
        return names.index(target)
    if target.isdecimal() and 1 <= int(target) <= count:
        return int(target) - 1
    known = f"the names are {', '.join(names[:20])}" if names is not None else "it has no names of columns"
    if count == 1 and names is not None and any(mark in names[0] for mark in ";\t|"):
        known += "; cells must be separated by commas"
    raise ValueError(
        f"[{command}] {path} has no column {target!r}: {known}; a number from 1 to {count} is accepted too"
    )


def _present(command: str, path: Path, line: int, column: str, cell: str) -> str:
    if cell.lower() in _MISSING:
        raise ValueError(
            f"[{command}] {path}, line {line}, {column}: the value is missing ({cell!r}); fill or remove such rows"
        )
    return cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(command: str, path: Path, line: int, column: str, cell: str) -> float:
    try:
        if (value := float(cell)) - value == 0:  # finite
            return value
    except ValueError:
        pass
    _present(command, path, line, column, cell)
    raise ValueError(
        f"[{command}] {path}, line {line}, {column}: {cell[:40]!r} is no finite number; encode columns of text as numbers"
    )
