"""Store: one flat block of shared memory for the parameters of a model, and where each lies in it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import _core

__all__ = ["Store", "flat_array"]

# Elements: each parameter begins on a cache line of its own, in either dtype.
_GRAIN = 16


def flat_array(arena: Any, dtype: str, elements: int) -> NDArray[Any]:
    """An array over an arena's memory, which it keeps alive."""
    return np.frombuffer(arena, dtype=dtype, count=elements)


class Store:
    """The flat arena of a model's parameters.

    ``arrays`` are views by name, ``offsets`` where each begins (in elements), ``elements`` the arena's size. The gaps
    between parameters are zero and stay so.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> None:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"[init] dtype is {dtype!r}: must be 'float32' or 'float64'")
        self.dtype = dtype
        self.shapes = dict(shapes)
        self.offsets: dict[str, int] = {}
        at = 0
        for name, shape in self.shapes.items():
            self.offsets[name] = at
            at += -(-math.prod(shape) // _GRAIN) * _GRAIN
        self.elements = max(at, _GRAIN)
        self.arena = _core.SharedArena(self.elements * np.dtype(dtype).itemsize)
        self.arrays = self.views(flat_array(self.arena, dtype, self.elements))

    def views(self, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Arrays of the parameters' shapes over another flat array of this layout."""
        return {
            name: flat[self.offsets[name] : self.offsets[name] + math.prod(shape)].reshape(shape)
            for name, shape in self.shapes.items()
        }

    def converted(self, dtype: str) -> Store:
        other = Store(self.shapes, dtype)
        for name, array in self.arrays.items():
            other.arrays[name][...] = array
        return other

    @staticmethod
    def generator(seed: int, name: str) -> np.random.Generator:
        """The random numbers of one parameter: Philox, keyed by a hash of seed and name."""
        key = int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest(), "little")
        return np.random.Generator(np.random.Philox(key=key))
