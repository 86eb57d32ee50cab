"""Several sources of equal samples, one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any, Literal

from gradring import _core
from gradring.sources._base import Source
from gradring.sources._callable import Callable
from gradring.sources._fields import Field
from gradring.sources._open import columns_of, map_style_source
from gradring.sources._opened import Opened, from_columns

__all__ = ["Concat", "named_sample", "one_field"]

Columns = list[tuple[Field, Any]]


class Concat(Source):
    """The samples of all ``parts``, one after the other: shards of one data set, or several data sets of equal samples.

    A part is anything that ``gr.Loader`` accepts: an array, the path of an ``.npy`` file, one of ``gr.sources``, a tuple,
    list or dict of those, or a data set with ``__getitem__`` and ``__len__``. All must have the same fields, dtypes and
    shapes; a part may have no samples. Files and arrays are read natively, where they lie. It may also be a field of
    another source: ``(Concat(["x0.npy", "x1.npy"]), labels)``. If one part is a Python function or data set, all must be;
    the samples are made in worker processes if any part asks for that (``workers``).

    >>> import numpy as np
    >>> from gradring.sources import open_source
    >>> both = Concat([np.arange(3), np.arange(10, 14)])
    >>> open_source(both).read([0, 2, 3, 6])
    array([ 0,  2, 10, 13])
    """

    def __init__(self, parts: Iterable[Any]) -> None:
        if isinstance(parts, (str, bytes)):
            raise TypeError("[Concat] parts is a single path: give a list of parts")
        self.parts = tuple(parts)
        if not self.parts:
            raise ValueError("[Concat] parts is empty: there must be at least one")
        self._joined: Callable | None = None
        self._ends: list[int] = []  # the number of the first sample behind each part, once they were opened

    def columns(self, name: str) -> tuple[bool, Columns]:
        kind, columns = self._columns(name)
        if kind not in ("array", "dict"):
            raise TypeError(
                f"[Concat] field {name!r} of the source has fields of its own: give the parts' fields apart"
            )
        return kind == "dict", columns

    def all_columns(self, name: str) -> tuple[str, Columns]:
        return self._columns(name)

    def opened(self) -> Opened:
        made = [map_style_source(part) for part in self.parts]
        if all(source is None for source in made):
            kind, columns = self._columns("0")
            return from_columns(columns, kind)
        joined = self._function(made)
        if joined is None:
            number = next(number for number, source in enumerate(made) if source is None)
            raise TypeError(
                f"[Concat] part {number} is a {type(self.parts[number]).__name__}, but others are Python functions or data "
                "sets: give all parts as such, or none"
            )
        return joined.opened()

    def function(self) -> Callable | None:
        return self._function([map_style_source(part) for part in self.parts])

    def _function(self, made: list[Callable | None]) -> Callable | None:
        """One function of all samples, if all parts are functions."""
        functions = [source for source in made if source is not None]
        if len(functions) < len(made):
            return None
        if self._joined is None:
            self._joined = _joined(functions)
            self._ends = list(accumulate(source.length for source in functions))
        return self._joined

    def place(self, number: int) -> tuple[int, int] | None:
        """The part that has this sample, and the sample's number in it; None for a source that was not opened."""
        if not 0 <= number < (self._ends or [0])[-1]:
            return None
        part = bisect_right(self._ends, number)
        return part, number - (self._ends[part - 1] if part else 0)

    def _columns(self, name: str) -> tuple[str, Columns]:
        found = [columns_of(part, name) for part in self.parts]
        kind, first = found[0]
        names = [field.name for field, _ in first]
        found = [(other_kind, _by_name(columns, names) if kind == "dict" else columns) for other_kind, columns in found]
        for number, (other_kind, columns) in enumerate(found):
            if (other_kind, _looks(columns)) != (kind, _looks(first)):
                raise ValueError(
                    f"[Concat] part {number} is {other_kind} of {_said(columns)}, part 0 {kind} of {_said(first)}: all parts "
                    "must have the same fields, dtypes and shapes"
                )
        self._ends = list(accumulate(columns[0][1].length for _, columns in found))
        joined = []
        for place, (field, _) in enumerate(first):
            joined.append((field.delivered, _core.concat_column([columns[place][1] for _, columns in found])))
        return kind, joined


def named_sample(source: Any, number: int) -> object:
    """What the user calls this sample of a source: its number, and for a ``Concat`` also that in its part.

    >>> import numpy as np
    >>> both = Concat([np.arange(3), np.arange(10, 14)])
    >>> both.opened().length, named_sample(both, 4), named_sample(np.arange(7), 4)
    (7, '4 (number 1 of part 1)', 4)
    """
    within = _within(source, number)
    return f"{number} ({within})" if within else number


def one_field(source: Any, field: str | int) -> Any:
    """A source of this field alone; None if the field cannot be separated from the others."""
    if isinstance(source, Concat):
        found = [one_field(part, field) for part in source.parts]
        return None if any(part is None for part in found) else Concat(found)
    if isinstance(source, Mapping):
        return (source[field],) if field in source else None
    if isinstance(source, (tuple, list)) and isinstance(field, int) and field < len(source):
        return (source[field],)
    return None


def _within(source: Any, number: int) -> str:
    place = source.place(number) if isinstance(source, Concat) else None
    if place is None:
        return ""
    part, own = place
    return f"{_within(source.parts[part], own) or f'number {own}'} of part {part}"


def _by_name(columns: Columns, names: list[str]) -> Columns:
    """Sort the columns in the order of these names, if they have the same names."""
    named = {column[0].name: column for column in columns}
    return [named[name] for name in names] if named.keys() == set(names) else columns


def _looks(columns: Columns) -> list[tuple[str, Any, tuple[int, ...]]]:
    return [(field.name, field.delivered.dtype, field.shape) for field, _ in columns]


def _said(columns: Columns) -> str:
    return ", ".join(f"{name!r} {dtype}{list(shape)}" for name, dtype, shape in _looks(columns))


class _Joined:
    """The sample with this number, from the function of the part that it belongs to."""

    def __init__(self, sources: list[Callable]) -> None:
        self.functions = [(source.fn, source.rng) for source in sources]
        self.ends = list(accumulate(source.length for source in sources))

    def __call__(self, number: int, *rng: Any) -> Any:
        place = bisect_right(self.ends, number)
        fn, takes = self.functions[place]
        own = number - (self.ends[place - 1] if place else 0)
        return fn(own, *rng) if takes else fn(own)


def _joined(sources: list[Callable]) -> Callable:
    workers: Literal["threads", "processes"] = (
        "processes" if any(source.workers == "processes" for source in sources) else "threads"
    )
    joined = _Joined(sources)
    return Callable(
        joined,
        joined.ends[-1],
        workers=workers,
        num_workers=max(source.num_workers for source in sources),
        rng=any(source.rng for source in sources),
        reseed=any(source.reseed for source in sources),
    )
