"""A loader in the form that an engine reads: natively, without Python between batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LoaderFields"]


@dataclass(frozen=True)
class LoaderFields:
    """The fields of a loader's batches: their shapes and dtypes, and the function with which an engine begins to read them."""

    looks: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    """Of each field the shape of a full batch and the dtype."""
    open: Callable[[Sequence[str]], Any]
    """Begins a pass whose fields have the given dtypes, and returns it as a ``_core.Feed``."""
