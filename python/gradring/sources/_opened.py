"""An open source, with all that a loader needs to know about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import _core
from gradring.sources._fields import Field
from gradring.transforms import plan

__all__ = ["KINDS", "Opened", "from_columns"]

KINDS = ("array", "tuple", "list", "dict")  # csrc/bindings/lease.h: BatchForm::Kind


@dataclass(frozen=True)
class Opened:
    """A native source, the fields that its batches have, and the form in which they are given to the user."""

    native: Any  # _core.Source
    fields: tuple[Field, ...]
    kind: str  # one of KINDS; the keys of a "dict" are the fields' names
    workers: str = "threads"  # or "processes"
    num_workers: int | None = None  # the number that the source requests, or None
    python: bool = False  # reading needs the GIL
    keeps: tuple[Any, ...] = ()  # functions to keep alive, because `native` holds them weakly

    @property
    def length(self) -> int:
        """The number of samples."""
        return int(self.native.length)

    def transformed(self, transforms: Any) -> Opened:
        """This source with transformed rows: ``{field: transform or list of them}``, or a list for a single array."""
        steps, fields, python = plan(self.fields, self.kind, transforms)
        if not any(steps):
            return self
        made: list[Any] = []
        native = self.native.transformed([[_noting(step, made) for step in steps_of] for steps_of in steps])
        known = {}
        for field, (name, dtype, shape) in zip(self.fields, native.fields, strict=True):
            known[field.name] = Field(name, np.dtype(dtype), tuple(shape))
        out = tuple(known[field.name] if touched else field for field, touched in zip(self.fields, fields, strict=True))
        return replace(self, native=native, fields=out, python=self.python or python, keeps=(*self.keeps, *made))

    def selected(self, selections: Iterable[Any]) -> Opened:
        """This source with some of its samples; each selection chooses from those of the one before."""
        native = self.native
        for selection in selections:
            native = selection.of(native)
        return replace(self, native=native)

    def pack(self, arrays: Sequence[NDArray[Any]]) -> Any:
        """Arrays in the form in which the user gave the source."""
        if self.kind == "array":
            return arrays[0]
        if self.kind == "dict":
            return {field.name: array for field, array in zip(self.fields, arrays, strict=True)}
        return tuple(arrays) if self.kind == "tuple" else list(arrays)

    def read(self, samples: Any, *, seed: int = 0, epoch: int = 0) -> Any:
        """Read samples in this thread, as a loader's workers do.

        >>> import numpy as np
        >>> from gradring.sources import open_source
        >>> open_source(np.arange(10) ** 2).read([3, 0, 3])
        array([9, 0, 9])
        """
        wanted = np.ascontiguousarray(samples, dtype=np.int64)
        arrays = [np.empty((len(wanted), *field.shape), field.dtype) for field in self.fields]
        self.native.read_into(wanted, arrays, seed, epoch)
        return self.pack(arrays)


def _noting(step: tuple[Any, ...], made: list[Any]) -> tuple[Any, ...]:
    """The native step. If it needs a Python function, that is added to `made`."""
    if step[0] != "python":
        return step
    kind, make, *rest = step

    def noting(*arguments: Any) -> Any:
        function = make(*arguments)
        made.append(function)
        return function

    return kind, noting, *rest


def from_columns(columns: Sequence[tuple[Field, Any]], kind: str) -> Opened:
    """Native columns, one per field, as a source of this kind."""
    native = _core.column_source([column for _, column in columns])
    return Opened(native, tuple(field.delivered for field, _ in columns), kind)
