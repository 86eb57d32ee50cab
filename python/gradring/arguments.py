"""Checks of arguments: a wrong type raises ``TypeError``, a wrong value ``ValueError``, in the same words."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "auto_or_whole",
    "byte_count",
    "choice",
    "flag",
    "float_dtype",
    "frames_inside",
    "plain",
    "real",
    "seconds",
    "whole",
]


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int with more digits than Python writes
        return f"an int of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def plain(value: Any) -> Any:
    """The Python object for a NumPy number, bool or text, and for a NumPy array that holds a single one and has no axis."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


def _kind(value: Any, also: str) -> type[Exception]:
    """Raise TypeError; or ValueError for a word, if another word (which ``also`` shows in quotes) would be accepted."""
    return ValueError if isinstance(value, str) and "'" in also else TypeError


def whole(where: str, argument: str, value: Any, least: int, most: int | None = None, *, also: str = "") -> int:
    """An int from ``least`` to ``most``. NumPy's ints are ints, bools are not; ``also`` says what else is accepted.

    >>> whole("Linear", "inputs", 3, 1)
    3
    >>> whole("Trainer", "threads", 0, 1, 256, also="'auto'")
    Traceback (most recent call last):
    ...
    ValueError: [Trainer] threads must be 'auto' or an int from 1 to 256, got 0
    """
    if type(value) is int and least <= value and (most is None or value <= most):
        return value
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    message = f"[{where}] {argument} must be {also and also + ' or '}an int {bounds}, got {_shown(value)}"
    try:
        number = operator.index(value)
    except TypeError:
        raise _kind(value, also)(message) from None
    if isinstance(value, bool):
        raise TypeError(message)
    if number < least or (most is not None and number > most):
        raise ValueError(message)
    return number


def auto_or_whole(where: str, argument: str, value: Any, least: int, most: int) -> int | None:
    """An int from ``least`` to ``most``, or None for ``"auto"``.

    >>> auto_or_whole("Loader", "prefetch", "auto", 1, 1024)
    """
    if isinstance(value, str) and value == "auto":
        return None
    return whole(where, argument, value, least, most, also="'auto'")


def byte_count(where: str, argument: str, value: Any) -> int | None:
    """A number of bytes of at least 1, or None. A float such as ``1e9`` is rounded down to whole bytes.

    >>> byte_count("Loader", "memory_budget", 2e9)
    2000000000
    """
    if value is None:
        return None
    return min(int(real(where, argument, value, least=1, also="None")), 1 << 62)


def seconds(where: str, argument: str, value: Any) -> float:
    """A positive number of seconds. None and infinity mean no limit.

    >>> seconds("Loader", "timeout", None)
    inf
    """
    if value is None or (isinstance(value, float) and value == math.inf):
        return math.inf
    return real(where, argument, value, above=0, also="None")


def real(
    where: str,
    argument: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    also: str = "",
) -> float:
    """A finite number ``x`` with ``least <= x``, ``above < x``, ``x < below`` and ``x <= most``.

    >>> real("Dropout", "p", 1.0, least=0, below=1)
    Traceback (most recent call last):
    ...
    ValueError: [Dropout] p must be a finite number of at least 0 and below 1, got 1.0
    """
    if type(value) is float and least <= value < below and above < value <= most and abs(value) != math.inf:
        return value
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("of at least", least), ("above", above), ("below", below), ("at most", most))
        if math.isfinite(bound)
    ]
    message = f"[{where}] {argument} must be {also and also + ' or '}a finite number {' and '.join(bounds)}".rstrip()
    message += f", got {_shown(value)}"
    if isinstance(value, (bool, str, bytes)):
        raise _kind(value, also)(message)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(message) from None
    except OverflowError:
        raise ValueError(message) from None
    if not (math.isfinite(number) and least <= number < below and above < number <= most):
        raise ValueError(message)
    return number


def flag(where: str, argument: str, value: Any) -> bool:
    """True or False, as Python's bool or NumPy's; a word such as ``"no"``, which Python counts as true, is an error.

    >>> flag("Loader", "shuffle", "no")
    Traceback (most recent call last):
    ...
    TypeError: [Loader] shuffle must be True or False, got 'no'
    """
    value = plain(value)
    if isinstance(value, bool):
        return value
    raise TypeError(f"[{where}] {argument} must be True or False, got {_shown(value)}")


def float_dtype(where: str, dtype: Any, also: tuple[str, ...] = ()) -> Any:
    """``"float32"``, ``"float64"`` or one of ``also``, from anything that ``numpy.dtype`` accepts for it."""
    try:
        name = dtype if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = dtype
    return choice(where, "dtype", name, ("float32", "float64", *also), "this version computes in these alone")


def choice(where: str, argument: str, value: Any, choices: Sequence[Any], hint: str = "") -> Any:
    """One of ``choices``; ``hint`` follows the error's message. A value of a type that no choice has is a ``TypeError``.

    >>> choice("Trainer", "nonfinite", "skip", ("raise", "ignore"))
    Traceback (most recent call last):
    ...
    ValueError: [Trainer] nonfinite must be 'raise' or 'ignore', got 'skip'
    """
    value = plain(value)
    if isinstance(value, (str, int, float, type(None))) and not isinstance(value, bool) and value in choices:
        return value
    *rest, last = map(repr, choices)
    listed = f"{', '.join(rest)} or {last}" if rest else last
    error = ValueError if type(value) in map(type, choices) else TypeError
    raise error(f"[{where}] {argument} must be {listed}, got {_shown(value)}{hint and '; ' + hint}")


def frames_inside() -> int:
    """The ``stacklevel`` with which the caller's warning names the user's line: it skips the library's frames."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("gradring."):
        level, frame = level + 1, frame.f_back
    return level + 1
