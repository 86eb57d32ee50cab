"""Checks of the loader's arguments."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

__all__ = ["at_least", "auto_or_at_least", "budget", "seconds"]


def at_least(argument: str, value: Any, least: int, most: int | None = None) -> int:
    """An int of at least `least`, and at most `most`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"[Loader] {argument} must be an int, got {type(value).__name__}") from None
    if isinstance(value, bool) or number < least:
        raise ValueError(f"[Loader] {argument} must be at least {least}, got {value}")
    if most is not None and number > most:
        raise ValueError(f"[Loader] {argument} must be at most {most}, got {value}")
    return number


def auto_or_at_least(argument: str, value: Any, least: int, most: int) -> int | None:
    """The same, or None for "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f"[Loader] {argument} must be an int or 'auto', got {value!r}")
        return None
    return at_least(argument, value, least, most)


def budget(value: Any) -> int | None:
    """Bytes, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or (not isinstance(value, Real) and not hasattr(value, "__index__")):
        raise TypeError(f"[Loader] memory_budget must be a number of bytes or None, got {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number) or number < 1:
        raise ValueError(f"[Loader] memory_budget must be finite and at least 1 byte, got {value}")
    return min(int(number), 1 << 62)


def seconds(value: Any) -> float:
    """A timeout; None waits for ever."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"[Loader] timeout must be a number of seconds or None, got {type(value).__name__}")
    if not float(value) > 0:
        raise ValueError(f"[Loader] timeout must be above 0 seconds, got {value}")
    return float(value)
