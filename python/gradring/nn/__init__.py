"""Layers. A model is a layer; ``Sequential`` makes one of several."""

from gradring.nn.activation import GELU, ReLU, Sigmoid, SiLU, Tanh
from gradring.nn.container import Residual, Sequential
from gradring.nn.dropout import Dropout
from gradring.nn.function import Function
from gradring.nn.layer import Layer, ParameterSpec
from gradring.nn.linear import Linear
from gradring.nn.shape import Flatten

__all__ = [
    "GELU",
    "Dropout",
    "Flatten",
    "Function",
    "Layer",
    "Linear",
    "ParameterSpec",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Tanh",
]
