"""A model's loss computed with NumPy alone, in float64, layer by layer: the truth for gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradring import nn


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


_ACTIVATIONS = {
    nn.ReLU: lambda x: np.maximum(x, 0),
    nn.GELU: _gelu,
    nn.SiLU: lambda x: x * _sigmoid(x),
    nn.Tanh: np.tanh,
    nn.Sigmoid: _sigmoid,
}


def forward(layer: nn.Layer, params: dict[str, np.ndarray], x: np.ndarray, path: str = "") -> np.ndarray:
    """What a layer should compute."""

    def name(part: str) -> str:
        return f"{path}.{part}" if path else part

    if isinstance(layer, nn.Sequential):
        for i, child in enumerate(layer.layers):
            x = forward(child, params, x, name(str(i)))
        return x
    if isinstance(layer, nn.Residual):
        return x + forward(layer.layer, params, x, name("layer"))
    if isinstance(layer, nn.Linear):
        y = x @ params[name("weight")]
        return y + params[name("bias")] if layer.bias else y
    if isinstance(layer, nn.Flatten):
        return x.reshape(len(x), -1)
    if isinstance(layer, nn.Function):
        return np.asarray(layer.forward(x))
    if isinstance(layer, nn.GELU) and layer.approximate == "none":
        return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))
    return _ACTIVATIONS[type(layer)](x)


def loss(kind: str, output: np.ndarray, y: np.ndarray) -> float:
    """The mean loss of a batch."""
    if kind == "cross_entropy":
        shifted = output - output.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return float(-logs[np.arange(len(y)), y].mean())
    if kind == "mse":
        return float(((output - y) ** 2).mean())
    return float((np.maximum(output, 0) - output * y + np.log1p(np.exp(-np.abs(output)))).mean())


def slopes(function: Any, array: np.ndarray, picks: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """Central differences of ``function()`` by some elements of ``array``, which is changed in place and restored."""
    flat = array.reshape(-1)
    result = []
    for i in picks:
        kept = flat[i]
        flat[i] = kept + h
        above = function()
        flat[i] = kept - h
        result.append((above - function()) / (2 * h))
        flat[i] = kept
    return np.array(result)
