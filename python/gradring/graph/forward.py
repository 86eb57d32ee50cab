"""What ``model(x)`` and ``predict`` run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from gradring import _core
from gradring.errors import GradringError
from gradring.graph.runtime import Runtime

if TYPE_CHECKING:
    from gradring.nn.layer import Layer
    from gradring.nn.store import Store

__all__ = ["Forward"]

_LARGEST_BATCH = 1024


class Forward:
    """A model's forward pass, from any number of threads at the same time: each call that runs has programs and
    temporaries of its own, kept for the batch shapes seen."""

    def __init__(self, model: Layer, store: Store | None = None, lanes: int | None = None) -> None:
        self.store = model.store if store is None else store
        self._model, self._lanes = model, _core.usable_cores() if lanes is None else lanes
        self._inside: set[int] = set()  # the threads
        self._free: list[Runtime] = []  # its methods are atomic: who takes one out has it alone

    def __call__(self, x: ArrayLike, batch_size: int = _LARGEST_BATCH) -> NDArray[Any]:
        me = threading.get_ident()
        if me in self._inside:
            raise GradringError(
                "[predict] it is running already, further up this thread's stack: a layer cannot call the model it is in"
            )
        try:
            runtime = self._free.pop()
        except IndexError:
            runtime = Runtime(self._model, self.store, lanes=self._lanes)
        self._inside.add(me)
        try:
            return runtime.predict(x, batch_size)
        finally:
            self._inside.discard(me)
            self._free.append(runtime)
