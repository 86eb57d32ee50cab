"""The linear layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import flag, whole
from gradring.nn.layer import Fill, Layer, ParameterSpec

if TYPE_CHECKING:
    from gradring.ir import Builder

__all__ = ["Linear", "uniform"]


def uniform(bound: float) -> Fill:
    """Values from the uniform distribution on [-bound, bound)."""

    def fill(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
        return generator.uniform(-bound, bound, shape)

    return fill


class Linear(Layer):
    """``y = x @ weight + bias`` over the last axis: (..., in) -> (..., out).

    ``weight`` is (in, out), ``bias`` (out,). Both begin uniform on ``[-1/sqrt(in), 1/sqrt(in)]``: PyTorch's bounds for
    its Linear, which are those of He et al., "Delving Deep into Rectifiers", 2015, with a = sqrt(5).

    >>> Linear(784, 10).parameter_specs()["weight"].shape
    (784, 10)
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        self.inputs = whole("Linear", "inputs", inputs, 1)
        self.outputs = whole("Linear", "outputs", outputs, 1)
        self.bias = flag("Linear", "bias", bias)

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        fill = uniform(1.0 / math.sqrt(self.inputs))
        specs = {"weight": ParameterSpec((self.inputs, self.outputs), fill)}
        if self.bias:
            specs["bias"] = ParameterSpec((self.outputs,), fill)
        return specs

    def trace(self, tracer: Builder, x: str) -> str:
        shape = tracer.shape(x)
        if len(shape) < 2 or shape[-1] != self.inputs:
            raise ValueError(
                f"[linear] {tracer.where(self)} needs (batch, ..., {self.inputs}), but {tracer.maker(x)} gives {shape}"
            )
        inputs = {"x": x, "w": tracer.parameter("weight", (self.inputs, self.outputs))}
        if self.bias:
            inputs["b"] = tracer.parameter("bias", (self.outputs,))
        return tracer.node("linear", inputs, (*shape[:-1], self.outputs))

    def __repr__(self) -> str:
        return f"Linear({self.inputs}, {self.outputs}{'' if self.bias else ', bias=False'})"
