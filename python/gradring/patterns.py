"""Patterns over the names of parameters, such as ``"*.bias"``: the names that they match, and the errors if they match
none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["as_patterns", "frozen_names", "matching"]


def as_patterns(where: str, argument: str, value: Any) -> tuple[str, ...]:
    """One pattern or several, as a tuple.

    >>> as_patterns("Trainer", "frozen", "0.*")
    ('0.*',)
    """
    patterns = (value,) if isinstance(value, str) else value
    if not isinstance(patterns, Iterable):
        raise TypeError(f"[{where}] {argument} must be a pattern over the parameters' names, or several, got {value!r}")
    patterns = tuple(patterns)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                f"[{where}] {argument} must be patterns over the parameters' names, such as '*.bias', got {pattern!r}"
            )
    return patterns


def matching(where: str, argument: str, patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that a pattern matches, in their order; ``ValueError`` for a pattern that matches none.

    ``*`` stands for any letters, including dots, ``?`` for one letter, and ``[abc]`` for one of these.

    >>> matching("Trainer", "frozen", ["0.*"], ["0.weight", "0.bias", "2.weight"])
    ['0.weight', '0.bias']
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"[{where}] {argument}: {pattern!r} matches no parameter{_instead(pattern, names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _instead(pattern: str, names: Sequence[str]) -> str:
    if any(name.startswith(f"{pattern}.") for name in names):
        return f": all of layer {pattern!r} is {pattern + '.*'!r}"
    close = difflib.get_close_matches(pattern, names, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f": they are called {shown}"


def frozen_names(where: str, patterns: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The parameters that ``frozen`` names, which are not trained; ``ValueError`` if no parameter is left to train."""
    found = tuple(matching(where, "frozen", patterns, names))
    if found and len(found) == len(names):
        raise ValueError(
            f"[{where}] frozen={list(patterns)} freezes all {len(names)} parameters, so that nothing is left to train: "
            "leave out the patterns of the layers to train, or call evaluate and predict alone"
        )
    return found
