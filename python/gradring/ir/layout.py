"""Where each parameter lies in the flat arena; gradients and optimizer states lie alike in theirs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["GRAIN", "Layout"]

# Elements: each parameter begins on a cache line of its own, in either dtype.
GRAIN = 16


@dataclass(frozen=True)
class Layout:
    """Shapes and offsets (in elements) by name, and the size of the arena.

    >>> Layout.of({"weight": (8, 6), "bias": (6,)})
    Layout(shapes={'weight': (8, 6), 'bias': (6,)}, offsets={'weight': 0, 'bias': 48}, elements=64)
    """

    shapes: Mapping[str, tuple[int, ...]]
    offsets: Mapping[str, int]
    elements: int

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
        """Parameters one after another, in order."""
        offsets: dict[str, int] = {}
        at = 0
        for name, shape in shapes.items():
            offsets[name] = at
            at += -(-math.prod(shape) // GRAIN) * GRAIN
        return cls(dict(shapes), offsets, max(at, GRAIN))
