"""Functions that an upper layer gives to a lower one, which may not import it.

``Layer.__call__`` runs a forward pass, but the module that runs it depends on the layers. So that module registers a
function here when it is imported, and the package, which knows all of its parts, says which module to import if nothing
has registered yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Hook", "forward", "save"]


class Hook:
    """A function that ``register`` sets. Before its first call, ``load`` imports the module that registers it."""

    def __init__(self) -> None:
        self.load: Callable[[], object] = lambda: None
        self._function: Callable[..., Any] | None = None

    def register(self, function: Callable[..., Any]) -> None:
        """Call this function from now on."""
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        if self._function is None:
            self.load()
        if self._function is None:
            raise RuntimeError("[gradring] nothing is registered that does this for a layer")
        return self._function(*arguments)


# forward(layer) returns the function of arrays that ``layer(x)`` calls; it has the store of the layer that it was made
# for.
forward = Hook()
# save(layer, path) writes a model to a file, which the module of files, above the layers, knows how to do.
save = Hook()
