"""What ``model(x)`` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from gradring import _core
from gradring.graph.runtime import Runtime

if TYPE_CHECKING:
    from gradring.nn.layer import Layer

__all__ = ["Forward"]

_LARGEST_BATCH = 1024


class Forward:
    """A model's forward pass, with programs kept for the batch shapes seen."""

    def __init__(self, model: Layer) -> None:
        self.store = model.store
        self._runtime = Runtime(model, self.store, lanes=_core.usable_cores())

    def __call__(self, x: ArrayLike) -> NDArray[Any]:
        return self._runtime.predict(x, _LARGEST_BATCH)
