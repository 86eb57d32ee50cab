"""Store: one flat block of shared memory for the parameters and buffers of a model, and where each lies in it."""

from __future__ import annotations

import copy
import gc
import hashlib
import math
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradring import devices
from gradring.arguments import float_dtype
from gradring.cuda import Array
from gradring.errors import GradringError
from gradring.ir import Layout, Place, memory_of, parameters_graph
from gradring.nn.params import Params

__all__ = ["Store", "view_of"]

_collecting = threading.Lock()


def view_of(arena: Any, place: Place) -> Any:
    """An array over a part of an arena's memory, which it keeps alive: of NumPy, or a ``cuda.Array``."""
    if hasattr(arena, "device"):
        return Array(arena, place.offset, place.shape, place.dtype)
    count = math.prod(place.shape)
    return np.frombuffer(arena, dtype=place.dtype, count=count, offset=place.offset).reshape(place.shape)


class Store:
    """The flat arena of a model's parameters, followed by its buffers, in the memory of ``device``.

    ``arrays`` are views of the parameters by name, ``offsets`` where each begins (in elements), ``elements`` the size
    of them all; ``buffers`` are views of the buffers. The gaps between them are always zero. ``fits`` counts the runs
    of ``Trainer.fit`` that train it at the moment; ``programs`` are those that use this memory. ``retired`` is set when
    a layer moves to another store; ``trained`` is set when a trainer has updated the parameters, and reset when they
    are filled or loaded.
    """

    fits = 0
    sharing: weakref.ref[Any] | None = None  # to the ranks that have this memory in common
    trained = False
    retired = False

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: str,
        buffers: Mapping[str, tuple[int, ...]] | None = None,
        device: str = devices.CPU,
    ) -> None:
        self.device = device
        self.programs: weakref.WeakSet[Any] = weakref.WeakSet()
        self.dtype: str = float_dtype("init", dtype)
        self.whole = self  # the model's store, of which this one may be a part
        layout = Layout.of(shapes, buffers)
        self.shapes, self.offsets, self.elements = dict(layout.shapes), dict(layout.offsets), layout.elements
        self.buffer_layout = layout.buffers
        memory = memory_of(parameters_graph(layout, self.dtype))
        (arena,) = memory.arenas.values()
        self.arena = self._reserved(arena.bytes)
        self.arrays = Params((name, view_of(self.arena, memory.places[name])) for name in shapes)
        self.buffers = Params((name, view_of(self.arena, memory.places[name])) for name in buffers or ())

    @property
    def layout(self) -> Layout:
        """The layout of the parameters, for graphs."""
        return Layout(self.shapes, self.offsets, self.elements, self.buffer_layout)

    @property
    def saved(self) -> Params:
        """Parameters and buffers: all that is part of a saved model."""
        return Params({**self.arrays, **self.buffers})

    def _reserved(self, size: int) -> Any:
        try:
            if size >= 2**63:
                raise MemoryError("no machine has so much")
            return devices.reserve(self.device, size)
        except MemoryError as error:
            shapes = {**self.shapes, **(self.buffer_layout.shapes if self.buffer_layout else {})}
            largest = max(shapes, key=lambda name: math.prod(shapes[name]))
            raise MemoryError(
                f"[init] {self.elements} parameters of {self.dtype} take {size / 2**30:.1f} GiB, the largest of them "
                f"{largest!r} {shapes[largest]}: {str(error).removeprefix('[arena] ')}"
            ) from None

    def part(self, path: str) -> Store:
        """A store for one layer of the model: the same memory, with only the layer's own parameters."""
        prefix = f"{path}."
        names = {name: name.removeprefix(prefix) for name in self.shapes if name.startswith(prefix)}
        part = copy.copy(self)
        part.whole = self
        part.shapes = {short: self.shapes[name] for name, short in names.items()}
        part.offsets = {short: self.offsets[name] for name, short in names.items()}
        part.arrays = Params((short, self.arrays[name]) for name, short in names.items())
        inside = [name for name in self.buffers if name.startswith(prefix)]
        part.buffers = Params((name.removeprefix(prefix), self.buffers[name]) for name in inside)
        if self.buffer_layout is not None:
            offsets = {name.removeprefix(prefix): self.buffer_layout.offsets[name] for name in inside}
            shapes = {name: array.shape for name, array in part.buffers.items()}
            part.buffer_layout = Layout(shapes, offsets, self.buffer_layout.elements)
        return part

    def require_idle(self, method: str) -> None:
        """Raise ``GradringError`` while ``Trainer.fit`` trains these parameters."""
        if self.whole.fits:
            raise GradringError(
                f"[{method}] Trainer.fit is training this model: call it before or after, or train a copy"
            )
        if self._common(unless_writing=True):
            raise GradringError(
                f"[{method}] the ranks of a communicator train this model, and have its parameters in common: call it before "
                "the trainer is made, or call trainer.reset on all ranks"
            )

    def require_own(self, method: str) -> None:
        """Raise ``GradringError`` if the ranks of a communicator have these parameters in common: a trainer beside theirs would
        write to the memory of all of them."""
        if self._common():
            raise GradringError(
                f"[{method}] the ranks of a communicator train this model, and have its parameters in common: delete their "
                "trainer first, or train a copy.deepcopy of the model"
            )

    def _common(self, *, unless_writing: bool = False) -> bool:
        """Whether living ranks have this memory in common. A caller that raises keeps no reference to them, which its traceback
        would keep alive."""
        sharing = self.whole.sharing
        if sharing is not None and sharing() is not None:
            # A trainer that was dropped may wait for a collection, which does nothing beside that of another thread.
            with _collecting:
                gc.collect()
        peers = None if sharing is None else sharing()
        return peers is not None and not peers.apart and not (unless_writing and peers.writing)

    def retire(self) -> None:
        """Called when a layer moves to another store: programs over this memory would not train it, so none may run
        again."""
        self.retired = True
        for programs in list(self.programs):  # a copy, because another thread may add one at any time
            programs.clear()

    def converted(self, dtype: str) -> Store:
        return self._copied(dtype, self.device)

    def moved(self, device: str) -> Store:
        return self._copied(self.dtype, device)

    def _copied(self, dtype: str, device: str) -> Store:
        other = Store(self.shapes, dtype, {name: array.shape for name, array in self.buffers.items()}, device)
        other.saved.update(self.saved)
        other.trained = self.trained
        return other

    @staticmethod
    def generator(seed: int, name: str) -> np.random.Generator:
        """The random numbers of one parameter: Philox, keyed by a hash of seed and name."""
        key = int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest(), "little")
        return np.random.Generator(np.random.Philox(key=key))
