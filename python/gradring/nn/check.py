"""Checks of layers' arguments."""

from __future__ import annotations

import math
import operator

__all__ = ["positive", "probability"]


def positive(layer: str, argument: str, value: int) -> int:
    """An int of at least 1, or an error that names layer and argument."""
    if isinstance(value, bool):
        raise TypeError(f"[{layer}] {argument} must be an int, got bool")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"[{layer}] {argument} must be an int, got {type(value).__name__}") from None
    if number < 1:
        raise ValueError(f"[{layer}] {argument} must be at least 1, got {number}")
    return number


def probability(layer: str, argument: str, value: float) -> float:
    """A float in [0, 1), or an error that names layer and argument."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"[{layer}] {argument} must be a number, got {type(value).__name__}") from None
    if not (math.isfinite(number) and 0.0 <= number < 1.0):
        raise ValueError(f"[{layer}] {argument} must be at least 0 and below 1, got {number}")
    return number
