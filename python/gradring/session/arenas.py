"""The arenas that a step reads and writes: parameters, gradients, and the optimizer's state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any

from numpy.typing import NDArray

from gradring import devices
from gradring.graph.memory import gradient_name, moved_name
from gradring.ir import Memory
from gradring.nn.store import Store, view_of

__all__ = ["Arenas"]

Array = NDArray[Any]
Share = Callable[[Sequence[int], Any], list[Any]]


class Arenas:
    """Memory for one model on its device, as a ``Memory`` lays it out: its parameters, which the store holds, and the other
    arrays that training keeps.

    Each arena is reserved in full when it is made. Without a ``memory`` there are only the parameters. ``share`` makes arenas
    of these sizes that several ranks have in common, and moves the store's arena there, too.
    """

    def __init__(self, store: Store, memory: Memory | None = None, share: Share | None = None) -> None:
        self.store, self._share = store, share
        self._blocks = {"parameters": ("param", store.arena)}
        others = [] if memory is None else [one for one in memory.arenas.values() if one.name not in self._blocks]
        self._blocks |= self._reserved(others, store.arena)

    def _reserved(self, arenas: Sequence[Any], keep: Any = None) -> dict[str, tuple[str, Any]]:
        sizes = [arena.bytes for arena in arenas]
        made = self._share(sizes, keep) if self._share is not None else [self._reserve(size) for size in sizes]
        return {arena.name: (arena.kind, block) for arena, block in zip(arenas, made, strict=True)}

    def _reserve(self, size: int) -> Any:
        return devices.reserve(self.store.device, size)

    def native(self) -> list[tuple[str, str, Any]]:
        """The name, kind and memory of each arena, in the form for ``_core.Engine``."""
        return [(name, kind, block) for name, (kind, block) in self._blocks.items()]

    def gradients(self, memory: Memory) -> dict[str, Array]:
        """The gradients by parameter: live arrays."""
        named = ((name, gradient_name(name)) for name in self.store.shapes)
        return {name: self._view(memory, gradient) for name, gradient in named if gradient in memory.places}

    def moved(self, memory: Memory) -> dict[str, Array]:
        """The copies of the buffers, by their names, that the micro-batches of a group move: live arrays, if there are any."""
        named = ((name, moved_name(name)) for name in self.store.buffers)
        return {name: self._view(memory, moved) for name, moved in named if moved in memory.places}

    def states(self, memory: Memory, names: Iterable[str]) -> dict[str, Array]:
        """The optimizer's arrays, such as ``"momentum.0.weight"``: live arrays."""
        return {
            f"{name}.{parameter}": self._view(memory, f"state.{name}[{parameter}]")
            for name in names
            for parameter in self.store.shapes
            if gradient_name(parameter) in memory.places  # the parameter is not frozen
        }

    def with_state(
        self, memory: Memory, names: Iterable[str], before: Mapping[str, Array]
    ) -> tuple[Arenas, dict[str, Array]]:
        """These arenas, but with other memory for the optimizer's arrays, which have their values of ``before`` or are zero;
        and the views of that memory."""
        other = copy(self)
        kept = {name: entry for name, entry in self._blocks.items() if entry[0] != "state"}
        other._blocks = kept | self._reserved([arena for arena in memory.arenas.values() if arena.kind == "state"])
        views = other.states(memory, names)
        for name in views.keys() & before.keys():
            views[name][...] = before[name]
        return other, views

    def become(self, other: Arenas) -> None:
        """Use the memory of other arenas from now on."""
        self._blocks = other._blocks

    def _view(self, memory: Memory, name: str) -> Array:
        place = memory.places[name]
        view: Array = view_of(self._blocks[place.arena][1], place)
        return view
