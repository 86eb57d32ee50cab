"""Groups of parameters that an optimizer treats differently, such as with another rate or without decay."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from gradring.arguments import plain
from gradring.patterns import as_patterns, matching

__all__ = ["Group", "as_groups", "assigned"]


class Group:
    """Patterns over the parameters' names, and the optimizer's arguments for the parameters that they match. It is a
    value: it compares, hashes and prints by its contents.

    >>> Group(("*.bias",), {"weight_decay": 0.0})
    {'params': '*.bias', 'weight_decay': 0.0}
    """

    __slots__ = ("options", "params")

    params: tuple[str, ...]
    options: dict[str, Any]

    def __init__(self, params: tuple[str, ...], options: Mapping[str, Any]) -> None:
        object.__setattr__(self, "params", params)
        object.__setattr__(self, "options", dict(options))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"[groups] {name} is read-only: make a new optimizer and assign it to trainer.optimizer")

    def _key(self) -> tuple[Any, ...]:
        return self.params, tuple(sorted(self.options.items(), key=lambda item: item[0]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        params = self.params[0] if len(self.params) == 1 else list(self.params)
        return repr({"params": params, **self.options})

    def __reduce__(self) -> tuple[Any, ...]:
        return Group, (self.params, self.options)


def as_groups(where: str, groups: Any, known: Sequence[str]) -> tuple[Group, ...]:
    """Check what a user gives as ``groups``, except the values, which the optimizer's own fields check."""
    if isinstance(groups, (Mapping, str)) or not isinstance(groups, Iterable):
        raise TypeError(
            f"[{where}] groups must be a list of dicts such as {{'params': '*.bias', 'lr': 1e-3}}, got "
            f"{type(groups).__name__}"
        )
    return tuple(_as_group(where, number, group, known) for number, group in enumerate(groups))


def _as_group(where: str, number: int, group: Any, known: Sequence[str]) -> Group:
    if isinstance(group, Group):
        group = {"params": group.params, **group.options}
    at = f"groups[{number}]"
    if not isinstance(group, Mapping):
        raise TypeError(f"[{where}] {at} must be a dict with 'params' and other arguments, got {type(group).__name__}")
    if "params" not in group:
        raise ValueError(f"[{where}] {at} has no 'params': give a pattern over the parameters' names, such as '*.bias'")
    patterns = as_patterns(where, f"{at}['params']", group["params"])
    if not patterns:
        raise ValueError(f"[{where}] {at}['params'] has no pattern: leave the group out, or name parameters")
    options = {name: plain(value) for name, value in group.items() if name != "params"}
    if not options:
        raise ValueError(
            f"[{where}] {at} changes nothing: beside 'params' it can have {', '.join(known)}; to keep these parameters as "
            "they are, give the trainer frozen=[...]"
        )
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it can have {', '.join(known)}"
            raise ValueError(f"[{where}] {at} has {name!r}, which is no argument of {where}: {hint}")
    return Group(patterns, options)


def assigned(where: str, groups: Sequence[Group], names: Sequence[str], frozen: Collection[str] = ()) -> list[int]:
    """Maps each trained parameter to the number of its group, from 1, or to 0 for none. ``ValueError`` if a pattern
    matches no parameter, or if two groups match the same one."""
    owner: dict[str, int] = {}
    for number, group in enumerate(groups, 1):
        found = matching(where, f"groups[{number - 1}]", group.params, names)
        if all(name in frozen for name in found):
            raise ValueError(
                f"[{where}] groups[{number - 1}] matches {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}, and "
                "all that it matches is frozen: leave the group out, or these parameters out of frozen"
            )
        for name in found:
            if name in owner:
                raise ValueError(
                    f"[{where}] parameter {name!r} is in two groups, groups[{owner[name] - 1}] and groups[{number - 1}]: "
                    "choose patterns that do not overlap, or list names instead"
                )
            owner[name] = number
    return [owner.get(name, 0) for name in names if name not in frozen]
