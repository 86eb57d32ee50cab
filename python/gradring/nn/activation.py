"""Activations, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gradring.arguments import choice
from gradring.nn.layer import Layer

if TYPE_CHECKING:
    from gradring.ir import Builder

__all__ = ["GELU", "ReLU", "SiLU", "Sigmoid", "Tanh"]


class _Activation(Layer):
    kind: ClassVar[str]

    def trace(self, tracer: Builder, x: str) -> str:
        return tracer.node("activation", {"x": x}, tracer.shape(x), {"activation": self.kind})


class ReLU(_Activation):
    """``max(x, 0)``; its derivative at 0 is 0."""

    kind = "relu"


class GELU(_Activation):
    """``x * sigmoid(2 u)``, ``u = sqrt(2/pi) (x + 0.044715 x^3)``: the tanh form of Hendrycks and Gimpel, "Gaussian
    Error Linear Units", 2016.

    That is PyTorch's ``GELU(approximate="tanh")`` and JAX's default. PyTorch's own default, ``approximate="none"``, is
    the form with ``erf``, which differs by at most 4.8e-4; it is not offered, and asking for it raises ``ValueError``.
    """

    kind = "gelu"

    def __init__(self, approximate: str = "tanh") -> None:
        choice("GELU", "approximate", approximate, ("tanh",), "the form with erf differs by at most 4.8e-4")


class SiLU(_Activation):
    """``x * sigmoid(x)``: Elfwing et al., 2017; also called swish."""

    kind = "silu"


class Tanh(_Activation):
    """``tanh(x)``."""

    kind = "tanh"


class Sigmoid(_Activation):
    """``1 / (1 + exp(-x))``."""

    kind = "sigmoid"
