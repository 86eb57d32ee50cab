"""Converts the transforms that a user gives to the form that the native core takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

__all__ = ["plan"]


class Field(Protocol):
    """The properties of a source's field that a transform needs."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def plain(self) -> bool: ...


def plan(fields: Sequence[Field], kind: str, transforms: Any) -> tuple[list[list[tuple[Any, ...]]], list[bool], bool]:
    """Returns (steps per field, whether a field has any, whether any needs the GIL)."""
    lists: list[list[Any]] = [[] for _ in fields]
    if transforms is None:
        pass
    elif isinstance(transforms, Mapping):
        for key, given in transforms.items():
            lists[_index(fields, kind, key)] = _as_list(given)
    elif kind == "array":
        lists[0] = _as_list(transforms)
    else:
        raise TypeError(
            f"[transforms] the source has {len(fields)} fields ({', '.join(field.name for field in fields)}): give a "
            "dict from field to transforms"
        )
    for field, given in zip(fields, lists, strict=True):
        if given and not field.plain:
            raise TypeError(
                f"[transforms] field {field.name!r} has dtype {field.dtype}, which no transform takes: fit casts it by "
                "itself, and .astype(numpy.float32) makes it computable"
            )
    steps = [[transform.step() for transform in given] for given in lists]
    return steps, [bool(given) for given in lists], any(transform.python for given in lists for transform in given)


def _as_list(given: Any) -> list[Any]:
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    for transform in listed:
        if isinstance(transform, type) or not callable(getattr(transform, "step", None)):
            name = transform.__name__ if isinstance(transform, type) else type(transform).__name__
            raise TypeError(
                f"[transforms] {name} is not one of gr.transforms (a function goes into gr.transforms.Python)"
            )
    return listed


def _index(fields: Sequence[Field], kind: str, key: Any) -> int:
    names = [field.name for field in fields]
    if kind == "dict":
        if key in names:
            return names.index(key)
    elif isinstance(key, int) and not isinstance(key, bool) and -len(fields) <= key < len(fields):
        return key % len(fields)
    wanted = names if kind == "dict" else list(range(len(fields)))
    raise ValueError(f"[transforms] there is no field {key!r}: expected one of {wanted}")
