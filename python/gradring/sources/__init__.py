"""Sources of samples for ``gr.Loader`` beyond arrays in memory: files, and Python functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring.planned import getter
from gradring.sources._base import Source
from gradring.sources._callable import Callable
from gradring.sources._concat import Concat
from gradring.sources._fields import Field
from gradring.sources._files import Idx, Npy, RawRecords
from gradring.sources._open import is_map_style, open_source, require_no_paths
from gradring.sources._opened import Opened

__all__ = [
    "Callable",
    "Concat",
    "Field",
    "Idx",
    "Npy",
    "Opened",
    "RawRecords",
    "Source",
    "is_map_style",
    "open_source",
    "require_no_paths",
]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.sources")
