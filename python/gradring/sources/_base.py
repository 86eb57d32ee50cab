"""The base class of all sources."""

from __future__ import annotations

from typing import Any

from gradring.attributes import Settled
from gradring.sources._fields import Field
from gradring.sources._opened import Opened, from_columns

__all__ = ["Source"]


class Source(Settled):
    """Something that a loader can read samples from."""

    def columns(self, name: str) -> tuple[bool, list[tuple[Field, Any]]]:
        """Return (whether it is a dict of fields, [(field, native column)]); a field without a name gets `name`."""
        raise TypeError(f"[loader] a {type(self).__name__} cannot be a part of another source")

    def all_columns(self, name: str) -> tuple[str, list[tuple[Field, Any]]]:
        """The kind of the source and its native columns; `name` is for a field that has none."""
        structured, columns = self.columns(name)
        return "dict" if structured else "array", columns

    def function(self) -> Any:
        """The ``Callable`` that this source is or amounts to; None for what is read natively."""
        return None

    def opened(self) -> Opened:
        """Open the source by itself, without a loader."""
        structured, columns = self.columns("0")
        return from_columns(columns, "dict" if structured else "array")
