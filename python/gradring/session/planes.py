"""Planes: the gradients of several replicas that wait for an update, as arrays of one checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["joined", "split", "take"]

Array = NDArray[Any]

_OTHERS = re.compile(r"replica ([1-9][0-9]{0,2})/(.*)", re.DOTALL)


def joined(planes: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays of all planes by name. Those of replica 0 have the names of their parameters.

    >>> list(joined([{"w": np.zeros(2)}, {"w": np.ones(2)}]))
    ['w', 'replica 1/w']
    """
    others = {f"replica {r}/{name}": array for r, plane in enumerate(planes) if r for name, array in plane.items()}
    return {**planes[0], **others}


def split(arrays: Mapping[str, Array]) -> list[dict[str, Array]]:
    """The planes of which ``joined`` made these arrays. A plane that is missing between two others is empty.

    >>> split({"w": 0, "replica 2/w": 1})
    [{'w': 0}, {}, {'w': 1}]
    """
    planes: dict[int, dict[str, Array]] = {0: {}}
    for name, array in arrays.items():
        found = _OTHERS.fullmatch(name)
        replica, parameter = (0, name) if found is None else (int(found[1]), found[2])
        planes.setdefault(replica, {})[parameter] = array
    return [planes.get(replica, {}) for replica in range(max(planes) + 1)]


def take(planes: Sequence[Mapping[str, Array]], given: Sequence[Mapping[str, Array]]) -> None:
    """Write the ``given`` gradients into these planes: each into its own if there are as many, else their sum into the
    first plane and zeros into the others."""
    if len(given) != len(planes):
        first = {name: reduce(np.add, [plane[name] for plane in given]) for name in given[0]}
        given = [first, *({name: np.zeros((), array.dtype) for name, array in first.items()} for _ in planes[1:])]
    for plane, arrays in zip(planes, given, strict=True):
        for name, array in arrays.items():
            plane[name][...] = array
