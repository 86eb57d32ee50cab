"""The states of callbacks in a checkpoint: numbers and texts by name, and arrays as tensors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.callbacks.base import Callback
from gradring.errors import CheckpointCorrupt, CheckpointMismatch, reason

__all__ = ["give", "joined", "named_states", "require_known", "split"]

States = dict[str, dict[str, Any]]
_PREFIX = "callbacks/"  # the prefix of the names of the callbacks' arrays in a checkpoint


def _named(callbacks: Iterable[Callback]) -> dict[str, Callback]:
    """Name callbacks by their class, and by number within a class."""
    named: dict[str, Callback] = {}
    for callback in callbacks:
        kind, number, name = type(callback).__qualname__, 1, type(callback).__qualname__
        while name in named:
            number, name = number + 1, f"{kind} {number + 1}"
        named[name] = callback
    return named


def named_states(callbacks: Iterable[Callback]) -> States:
    """The states of the callbacks that have one."""
    states: States = {}
    for name, callback in _named(callbacks).items():
        state = callback.state_dict()
        if not isinstance(state, dict):
            raise TypeError(f"[{name}] state_dict must return a dict, got {type(state).__name__}")
        odd = [key for key in state if not isinstance(key, str)]
        if odd:
            raise TypeError(f"[{name}] state_dict has the key {odd[0]!r}: keys must be texts, as a file has no others")
        if state:
            states[name] = state
    return states


def split(states: States) -> tuple[States, dict[str, NDArray[Any]]]:
    """Split a state into what JSON can hold, and the arrays."""
    texts: States = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, state in states.items():
        texts[name] = {}
        for key, value in state.items():
            if isinstance(value, np.ndarray):
                arrays[f"{_PREFIX}{name}/{key}"] = value
            else:
                texts[name][key] = value.item() if isinstance(value, np.generic) else value
        try:
            json.dumps(texts[name])
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"[{name}] state_dict has something that a checkpoint cannot hold: {error}; use numbers, texts, lists and "
                "dicts of them, and arrays at the top"
            ) from None
    return texts, arrays


def joined(text: Any, tensors: Mapping[str, NDArray[Any]], where: str) -> tuple[States, dict[str, NDArray[Any]]]:
    """The states of a checkpoint, and its other tensors."""
    try:
        states = {} if text is None else json.loads(text)
        if not isinstance(states, dict) or not all(isinstance(state, dict) for state in states.values()):
            raise ValueError("the states of callbacks are no dict of dicts")
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointCorrupt(f"{where}: the metadata do not fit: {error}") from error
    rest = {}
    for tensor, array in tensors.items():
        name, slash, key = tensor.removeprefix(_PREFIX).partition("/")
        if not tensor.startswith(_PREFIX):
            rest[tensor] = array
        elif slash and name in states:
            states[name][key] = array
        else:
            raise CheckpointCorrupt(f"{where}: tensor {tensor!r} belongs to no callback")
    return states, rest


def require_known(states: States, callbacks: Iterable[Callback], path: str) -> None:
    """``CheckpointMismatch`` if what a callback remembers would be lost."""
    lost = sorted(states.keys() - _named(callbacks).keys())
    if lost:
        raise CheckpointMismatch(
            f"[Trainer.fit] {path} has the state of {', '.join(lost)}, which is not among callbacks: give it, or take the "
            "file without it, by trainer.load(path) and fit without resume"
        )


def _owners(states: States, named: Mapping[str, Callback]) -> Iterator[tuple[str, Callback, dict[str, Any]]]:
    """Each callback that has a state, with its name and its state.

    Callbacks of one class may have another order than in the run that saved them, so those that know their own states
    choose first. The others take the state of their name, or what is left if another callback has chosen that one.
    """
    free = [name for name in named if name in states]
    found: dict[str, str] = {}

    def choose(name: str, own: bool) -> None:
        same_class = [source for source in free if type(named[source]) is type(named[name])]
        if own:
            same_class = [source for source in same_class if named[name]._is_own(states[source])]
        elif name in free:
            same_class = [name]
        if same_class:
            found[name] = same_class[0]
            free.remove(same_class[0])

    for name in named:
        choose(name, own=True)
    for name in named:
        if name not in found and name in states:
            choose(name, own=False)
    for name, source in found.items():
        yield name, named[name], states[source]


def give(states: States, callbacks: Iterable[Callback], path: str) -> None:
    """Give each callback its own state."""
    for name, callback, state in _owners(states, _named(callbacks)):
        if type(callback).load_state_dict is Callback.load_state_dict:
            raise TypeError(
                f"[{type(callback).__name__}] it overrides state_dict, and not load_state_dict: what the file has of it "
                "would be lost; give it both"
            )
        try:
            callback.load_state_dict(state)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointMismatch(
                f"[Trainer.fit] {path}: the state of {name} does not fit this one: {reason(error)}"
            ) from error
