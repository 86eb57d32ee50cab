"""Store: one flat block of shared memory for the parameters of a model, and where each lies in it."""

from __future__ import annotations

import copy
import hashlib
import math
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import _core
from gradring.arguments import float_dtype
from gradring.errors import GradringError
from gradring.ir import Layout
from gradring.nn.params import Params

__all__ = ["Store", "flat_array"]


def flat_array(arena: Any, dtype: str, elements: int) -> NDArray[Any]:
    """An array over an arena's memory, which it keeps alive."""
    return np.frombuffer(arena, dtype=dtype, count=elements)


class Store:
    """The flat arena of a model's parameters.

    ``arrays`` are views by name, ``offsets`` where each begins (in elements), ``elements`` the arena's size. The gaps
    between parameters are zero and stay so. ``fits`` counts the runs of ``Trainer.fit`` that train it at the moment;
    ``programs`` are those that run over this memory. ``retired`` once a layer has left for another store;
    ``trained`` once a trainer has updated the parameters, until they are filled anew or loaded.
    """

    fits = 0
    trained = False
    retired = False

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> None:
        self.programs: weakref.WeakSet[Any] = weakref.WeakSet()
        self.dtype: str = float_dtype("init", dtype)
        self.whole = self  # the model's store, of which this one may be a part
        layout = Layout.of(shapes)
        self.shapes, self.offsets, self.elements = dict(layout.shapes), dict(layout.offsets), layout.elements
        self.arena = self._reserved(self.elements * np.dtype(self.dtype).itemsize)
        self.arrays = self.views(flat_array(self.arena, self.dtype, self.elements))

    @property
    def layout(self) -> Layout:
        """Where each parameter lies, as a graph wants to know it."""
        return Layout(self.shapes, self.offsets, self.elements)

    def views(self, flat: NDArray[Any]) -> Params:
        """Arrays of the parameters' shapes over another flat array of this layout."""
        return Params(
            (name, flat[self.offsets[name] : self.offsets[name] + math.prod(shape)].reshape(shape))
            for name, shape in self.shapes.items()
        )

    def _reserved(self, size: int) -> Any:
        try:
            if size >= 2**63:
                raise MemoryError("[arena] no machine has so much")
            return _core.SharedArena(size)
        except MemoryError as error:
            largest = max(self.shapes, key=lambda name: math.prod(self.shapes[name]))
            raise MemoryError(
                f"[init] {self.elements} parameters of {self.dtype} take {size / 2**30:.1f} GiB, the largest of them "
                f"{largest!r} {self.shapes[largest]}: {error}"
            ) from None

    def part(self, path: str) -> Store:
        """The same memory as one layer of the model sees it, which knows its own parameters alone."""
        prefix = f"{path}."
        names = {name: name.removeprefix(prefix) for name in self.shapes if name.startswith(prefix)}
        part = copy.copy(self)
        part.whole = self
        part.shapes = {short: self.shapes[name] for name, short in names.items()}
        part.offsets = {short: self.offsets[name] for name, short in names.items()}
        part.arrays = Params((short, self.arrays[name]) for name, short in names.items())
        return part

    def require_idle(self, method: str) -> None:
        """``GradringError`` while ``Trainer.fit`` trains these parameters."""
        if self.whole.fits:
            raise GradringError(
                f"[{method}] Trainer.fit is training this model: call it before or after, or train a copy"
            )

    def retire(self) -> None:
        """A layer leaves: programs over this memory would no longer train it, so none may run again."""
        self.retired = True
        for programs in self.programs:
            programs.clear()

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
