"""Checks of arguments: a wrong type raises ``TypeError``, a wrong value ``ValueError``, in the same words."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["choice", "float_dtype", "real", "whole"]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def whole(where: str, argument: str, value: Any, least: int, most: int | None = None, *, also: str = "") -> int:
    """An int from ``least`` to ``most``. NumPy's ints are ints, bools are not; ``also`` is what else may be given.

    >>> whole("Linear", "inputs", 3, 1)
    3
    >>> whole("Trainer", "threads", 0, 1, 256, also="'auto'")
    Traceback (most recent call last):
    ...
    ValueError: [Trainer] threads must be 'auto' or an int from 1 to 256, got 0
    """
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    message = f"[{where}] {argument} must be {also and also + ' or '}an int {bounds}, got {_shown(value)}"
    try:
        number = operator.index(value)
    except TypeError:
        # Where words may stand as well, another word is a wrong value.
        raise (ValueError if also and isinstance(value, str) else TypeError)(message) from None
    if isinstance(value, bool):
        raise TypeError(message)
    if number < least or (most is not None and number > most):
        raise ValueError(message)
    return number


def real(
    where: str,
    argument: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    also: str = "",
) -> float:
    """A finite number ``x`` with ``least <= x``, ``above < x`` and ``x < below``.

    >>> real("Dropout", "p", 1.0, least=0, below=1)
    Traceback (most recent call last):
    ...
    ValueError: [Dropout] p must be a finite number of at least 0 and below 1, got 1.0
    """
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("of at least", least), ("above", above), ("below", below))
        if math.isfinite(bound)
    ]
    message = f"[{where}] {argument} must be {also and also + ' or '}a finite number {' and '.join(bounds)}".rstrip()
    message += f", got {_shown(value)}"
    if isinstance(value, (bool, str, bytes)):
        raise (ValueError if also and isinstance(value, str) else TypeError)(message)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(message) from None
    except OverflowError:
        raise ValueError(message) from None
    if not (math.isfinite(number) and least <= number < below and number > above):
        raise ValueError(message)
    return number


def float_dtype(where: str, dtype: Any) -> Any:
    """``"float32"`` or ``"float64"``, from whatever NumPy takes for it."""
    try:
        name = dtype if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = dtype
    return choice(where, "dtype", name, ("float32", "float64"), "this version computes in these alone")


def choice(where: str, argument: str, value: Any, choices: Sequence[Any], hint: str = "") -> Any:
    """One of ``choices``; ``hint`` follows the error's message.

    >>> choice("Trainer", "nonfinite", "skip", ("raise", "ignore"))
    Traceback (most recent call last):
    ...
    ValueError: [Trainer] nonfinite must be 'raise' or 'ignore', got 'skip'
    """
    if isinstance(value, (str, int, float, type(None))) and not isinstance(value, bool) and value in choices:
        return value
    *rest, last = map(repr, choices)
    listed = f"{', '.join(rest)} or {last}" if rest else last
    raise ValueError(f"[{where}] {argument} must be {listed}, got {_shown(value)}{hint and '; ' + hint}")
