"""The flat arenas that a step reads and writes: parameters, gradients, and the optimizer's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import _core
from gradring.nn.store import Store, flat_array

__all__ = ["Arenas"]

Array = NDArray[Any]


class Arenas:
    """Shared memory for one model: its parameters, which the store holds, and what training keeps beside them.

    Gradients and each of the optimizer's ``states`` have the layout of the parameters. An arena is reserved in full when
    it is made, so a model that is not trained (``states=None``) gets none.
    """

    def __init__(self, store: Store, states: Sequence[str] | None) -> None:
        self.store = store
        self._item = np.dtype(store.dtype).itemsize
        self.param = store.arena
        self.grad = _core.SharedArena(self._item * (1 if states is None else store.elements))
        self.state = self._reserve(states or ())

    def gradients(self) -> dict[str, Array]:
        """The gradients by parameter: live arrays."""
        return self.store.views(flat_array(self.grad, self.store.dtype, self.store.elements))

    def states(self, names: Sequence[str]) -> dict[str, Array]:
        """The optimizer's arrays, such as ``"momentum.0.weight"``: live arrays."""
        elements = self.store.elements
        flat = flat_array(self.state, self.store.dtype, len(names) * elements)
        views: dict[str, Array] = {}
        for number, name in enumerate(names):
            part = flat[number * elements : (number + 1) * elements]
            views |= {f"{name}.{key}": view for key, view in self.store.views(part).items()}
        return views

    def replace_state(self, names: Sequence[str], before: Mapping[str, Array]) -> dict[str, Array]:
        """Other memory for the optimizer's arrays, with the values that they had before, or zeros; its views."""
        self.state = self._reserve(names)
        views = self.states(names)
        for name, view in views.items():
            if name in before:
                view[...] = before[name]
        return views

    def _reserve(self, names: Sequence[str]) -> Any:
        return _core.SharedArena(self._item * max(len(names) * self.store.elements, 1))
