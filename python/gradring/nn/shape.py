"""Layers that only change the shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gradring.nn.layer import Layer

if TYPE_CHECKING:
    from gradring.ir import Builder

__all__ = ["Flatten"]


class Flatten(Layer):
    """(batch, a, b, ...) -> (batch, a * b * ...), without a copy."""

    def trace(self, tracer: Builder, x: str) -> str:
        shape = tracer.shape(x)
        if len(shape) == 2:
            return x
        return tracer.view(x, (shape[0], math.prod(shape[1:])))
