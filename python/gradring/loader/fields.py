"""A loader as an engine reads it: natively, without Python between batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradring import _core

if TYPE_CHECKING:
    from gradring.loader.loader import Loader

__all__ = ["LoaderFields"]


class LoaderFields:
    """The (x, y) of a loader's batches from number ``start`` of its epoch on.

    Indexing gives arrays of the shapes and dtypes of a full batch, whose values mean nothing.
    """

    def __init__(self, loader: Loader, start: int = 0, *, in_order: bool = False) -> None:
        self._loader, self._start, self._in_order = loader, start, in_order

    def __len__(self) -> int:
        return len(self._loader._opened.fields)

    def __getitem__(self, index: int) -> NDArray[Any]:
        field = self._loader._opened.fields[index]
        return np.zeros((self._loader._rows, *field.shape), field.dtype)

    def open(self, dtypes: Sequence[str]) -> Any:
        """A ``_core.Feed`` whose fields have these dtypes."""
        lease, watcher = self._loader._start_pass(
            self._start * self._loader.batch_size * self._loader.world_size,
            stay=True,
            dtypes=tuple(dtypes),
            in_order=self._in_order,
        )
        return _core.LoaderFeed(lease.run, watcher)
