"""The interface of transforms, and checks that they share."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike

from gradring.arguments import choice
from gradring.arrays import NATIVE_DTYPES

__all__ = ["Layout", "Transform", "dtype_name", "layout_name"]

Layout = Literal["HWC", "CHW", "auto"]


class Transform(Protocol):
    """A change that is made to each row on its way from the source to the batch."""

    @property
    def python(self) -> bool:
        """Whether it needs the GIL."""
        ...

    def step(self) -> tuple[Any, ...]:
        """The transform in the form that the native core takes."""
        ...


def dtype_name(transform: str, dtype: DTypeLike) -> str:
    try:
        name = np.dtype(dtype).newbyteorder("=").name
    except TypeError:
        name = repr(dtype)
    if name not in NATIVE_DTYPES:
        raise TypeError(f"[{transform}] dtype is {name}: expected one of {', '.join(sorted(NATIVE_DTYPES))}")
    return name


def layout_name(transform: str, layout: str) -> str:
    name: str = choice(transform, "layout", layout, ("HWC", "CHW", "auto"))
    return name
