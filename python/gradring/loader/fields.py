"""A loader in the form that an engine reads: natively, without Python between batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LoaderFields"]


@dataclass(frozen=True)
class LoaderFields:
    """The fields of a loader's batches: their shapes and dtypes, and the function with which an engine begins to read them."""

    looks: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    """The shape of a full batch and the dtype of each field."""
    open: Callable[[Sequence[str]], Any]
    """Begin a pass whose fields have the given dtypes, and return it as a ``_core.Feed``."""
    called: Callable[[int], object]
    """Gives what the user calls a sample: its number in the source."""
    read_again: Callable[[int, int], tuple[NDArray[Any], Sequence[NDArray[Any]] | None]]
    """Given a batch's position in the epoch's order, and its rows: the numbers of its samples, and their fields, unless they
    cannot be read a second time."""
