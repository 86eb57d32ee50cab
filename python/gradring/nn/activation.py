"""Activations, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, get_args

from gradring.arguments import choice
from gradring.choices import Approximate
from gradring.nn.layer import Layer

if TYPE_CHECKING:
    from gradring.ir import Builder

__all__ = ["GELU", "ReLU", "SiLU", "Sigmoid", "Tanh"]


class _Activation(Layer):
    kind: ClassVar[str]

    def trace(self, tracer: Builder, x: str) -> str:
        return tracer.node("activation", {"x": x}, tracer.shape(x), {"activation": self.kind, **self.form()})

    def form(self) -> dict[str, Any]:
        """Attributes beside the kind, which an op that applies activations on the way does not have."""
        return {}


class ReLU(_Activation):
    """``max(x, 0)``; its derivative at 0 is 0."""

    kind = "relu"


class GELU(_Activation):
    """``x * sigmoid(2 u)``, ``u = sqrt(2/pi) (x + 0.044715 x^3)``: the tanh form of Hendrycks and Gimpel, "Gaussian
    Error Linear Units", 2016.

    That is PyTorch's ``GELU(approximate="tanh")`` and JAX's default. ``GELU("none")`` is the exact form, PyTorch's default:
    ``x * (1 + erf(x / sqrt(2))) / 2``. The two differ by at most 4.8e-4. A linear layer before the tanh form applies it while
    its product is in cache; the exact form is a pass of its own.
    """

    kind = "gelu"

    def __init__(self, approximate: Approximate = "tanh") -> None:
        self.approximate: Approximate = choice("GELU", "approximate", approximate, get_args(Approximate))

    def form(self) -> dict[str, Any]:
        return {} if self.approximate == "tanh" else {"approximate": self.approximate}

    def __repr__(self) -> str:
        return "GELU()" if self.approximate == "tanh" else f"GELU({self.approximate!r})"


class SiLU(_Activation):
    """``x * sigmoid(x)``: Elfwing et al., 2017; also called swish."""

    kind = "silu"


class Tanh(_Activation):
    """``tanh(x)``."""

    kind = "tanh"


class Sigmoid(_Activation):
    """``1 / (1 + exp(-x))``."""

    kind = "sigmoid"
