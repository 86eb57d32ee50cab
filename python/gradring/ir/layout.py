"""The place of each parameter in the flat arena; gradients and optimizer states have the same layout in theirs. Buffers
lie after the parameters."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

__all__ = ["GRAIN", "Layout", "padded"]

# The offset of each parameter, in elements, is a multiple of this, so that each begins on a cache line of its own.
GRAIN = 16


def padded(size: int) -> int:
    """How many elements of an arena an array of ``size`` elements takes."""
    return -(-size // GRAIN) * GRAIN


@dataclass(frozen=True)
class Layout:
    """Shapes and offsets (in elements) by name, and their size. ``buffers`` is the layout of the buffers, whose part of the
    arena begins at ``elements``.

    >>> Layout.of({"weight": (8, 6), "bias": (6,)})
    Layout(shapes={'weight': (8, 6), 'bias': (6,)}, offsets={'weight': 0, 'bias': 48}, elements=64)
    """

    shapes: Mapping[str, tuple[int, ...]]
    offsets: Mapping[str, int]
    elements: int
    buffers: Layout | None = field(default=None, repr=False)

    __hash__ = None  # type: ignore[assignment]  # it has mappings, so no hash agrees with ==

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], buffers: Mapping[str, tuple[int, ...]] | None = None) -> Layout:
        """Parameters one after another, in order, and then the buffers likewise."""
        offsets: dict[str, int] = {}
        at = 0
        for name, shape in shapes.items():
            offsets[name] = at
            at += padded(math.prod(shape))
        return cls(dict(shapes), offsets, max(at, GRAIN), cls.of(buffers) if buffers else None)

    def without(self, names: Collection[str]) -> Layout:
        """The layout of all parameters except these, one after another. Gradients and the optimizer's states have it.

        >>> Layout.of({"a": (8,), "b": (4,), "c": (20,)}).without({"a"})
        Layout(shapes={'b': (4,), 'c': (20,)}, offsets={'b': 0, 'c': 16}, elements=48)
        """
        if not names:
            return Layout(self.shapes, self.offsets, self.elements)
        return Layout.of({name: shape for name, shape in self.shapes.items() if name not in names})

    @property
    def whole(self) -> int:
        """The size of the arena in elements, buffers included."""
        return self.elements + (self.buffers.elements if self.buffers else 0)
