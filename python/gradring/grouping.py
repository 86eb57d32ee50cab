"""What a checkpoint's metadata say about groups, frozen parameters and plateau schedules."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gradring.errors import CheckpointCorrupt, reason
from gradring.optim import Optimizer
from gradring.optim.plateau import PlateauState
from gradring.session.base import BaseSession

__all__ = ["described", "grouped_otherwise", "schedules_in", "sound_schedules"]


def _groups(session: BaseSession, optimizer: Optimizer) -> list[list[str]]:
    """The names of each group's parameters."""
    found: list[list[str]] = [[] for _ in optimizer.rules]
    trained = [name for name in session.params if name not in session.frozen]
    numbers = optimizer.assigned(list(session.params), session.frozen)
    for name, number in zip(trained, numbers, strict=True):
        found[number].append(name)
    return found[1:]


def described(session: BaseSession, optimizer: Optimizer) -> dict[str, str]:
    """The metadata that ``grouped_otherwise`` reads."""
    return {"groups": json.dumps(_groups(session, optimizer)), "frozen": json.dumps(list(session.frozen))}


def grouped_otherwise(metadata: Mapping[str, str], session: BaseSession, optimizer: Optimizer, where: str) -> str:
    """A text that says which groups or frozen parameters differed when a file was saved; empty if none did."""
    frozen, groups = _names(metadata, "frozen", where), _lists(metadata, "groups", where)
    if set(frozen) != set(session.frozen):
        odd = sorted(set(frozen) ^ set(session.frozen))[0]
        state = "frozen in the file and is trained here" if odd in frozen else "trained in the file and is frozen here"
        return f"parameter {odd!r} was {state}: give the trainer frozen={frozen}"
    now = {name: group for group in _groups(session, optimizer) for name in group}
    then = {name: group for group in groups for name in group}
    for name in session.params:
        if sorted(now.get(name, [])) != sorted(then.get(name, [])):
            return (
                f"parameter {name!r} is in another group than in the file, {_told(now.get(name))} instead of "
                f"{_told(then.get(name))}: give the optimizer the groups of {metadata.get('optimizer', 'the file')}"
            )
    return ""


def _told(group: list[str] | None) -> str:
    return "none" if group is None else f"that of {', '.join(group[:3])}{', ...' if len(group) > 3 else ''}"


def _json(metadata: Mapping[str, str], key: str, where: str) -> list[Any]:
    """A list in the metadata; empty if the file is older than the key."""
    try:
        value = json.loads(metadata.get(key, "[]"))
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{where}: the metadata do not fit: {key}: {error}") from error
    if not isinstance(value, list):
        raise CheckpointCorrupt(f"{where}: the metadata do not fit: {key} is no list")
    return value


def _names(metadata: Mapping[str, str], key: str, where: str) -> list[str]:
    value = _json(metadata, key, where)
    if not all(isinstance(name, str) for name in value):
        raise CheckpointCorrupt(f"{where}: the metadata do not fit: {key} must have only names")
    return value


def _lists(metadata: Mapping[str, str], key: str, where: str) -> list[list[str]]:
    value = _json(metadata, key, where)
    if not all(isinstance(group, list) and all(isinstance(name, str) for name in group) for group in value):
        raise CheckpointCorrupt(f"{where}: the metadata do not fit: {key} must have only lists of names")
    return value


def schedules_in(metadata: Mapping[str, str], where: str) -> list[Any]:
    """The states of the plateau schedules when the file was saved."""
    value = _json(metadata, "schedules", where)
    try:
        sound_schedules(value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointCorrupt(f"{where}: the metadata do not fit: schedules: {reason(error)}") from error
    return value


def sound_schedules(states: Sequence[Any]) -> None:
    """Raise an error unless these are states of plateau schedules, or None."""
    for state in states:
        if state is not None:
            PlateauState.from_dict(state)
