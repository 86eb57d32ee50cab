"""What all of gr.transforms have in common."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["Transform", "dtype_name", "layout_name"]

_NATIVE = frozenset(
    ("float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
)


class Transform(Protocol):
    """Something that a row goes through on its way from the source to the batch."""

    @property
    def python(self) -> bool:
        """Whether it needs the GIL."""
        ...

    def step(self) -> tuple[Any, ...]:
        """Itself as the native core takes it."""
        ...


def dtype_name(transform: str, dtype: DTypeLike) -> str:
    name = np.dtype(dtype).newbyteorder("=").name
    if name not in _NATIVE:
        raise TypeError(f"[{transform}] dtype is {name}: expected one of {', '.join(sorted(_NATIVE))}")
    return name


def layout_name(transform: str, layout: str) -> str:
    if layout not in ("HWC", "CHW", "auto"):
        raise ValueError(f"[{transform}] layout is {layout!r}: expected 'HWC', 'CHW' or 'auto'")
    return layout
