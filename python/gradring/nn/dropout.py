"""Dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring.arguments import real
from gradring.nn.layer import Layer

if TYPE_CHECKING:
    from gradring.ir import Builder

__all__ = ["Dropout"]


class Dropout(Layer):
    """In training, zero each element with probability ``p`` and divide the rest by ``1 - p``; otherwise do nothing.
    With ``p=1`` all are zero, and so are the gradients before this layer.

    The choice of elements is a function of (seed, forward pass, layer, sample, element), so it does not depend on
    threads or on how batches are formed. Srivastava et al., "Dropout", 2014.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = real("Dropout", "p", p, least=0, most=1)

    def trace(self, tracer: Builder, x: str) -> str:
        if not tracer.training or self.p == 0.0:
            return x
        number = sum(node.op == "dropout" for node in tracer.graph.nodes)
        inputs = {"x": x, "draw": tracer.draw()}
        return tracer.node("dropout", inputs, tracer.shape(x), {"p": self.p, "layer": number})

    def __repr__(self) -> str:
        return f"Dropout({self.p})"
