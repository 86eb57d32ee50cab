"""Layers. A model is a layer; ``Sequential`` makes one of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring.nn.activation import GELU, ReLU, Sigmoid, SiLU, Tanh
from gradring.nn.container import Residual, Sequential
from gradring.nn.dropout import Dropout
from gradring.nn.embedding import Embedding
from gradring.nn.function import Function
from gradring.nn.layer import Layer, ParameterSpec
from gradring.nn.linear import Linear
from gradring.nn.norm import BatchNorm1d, LayerNorm, RMSNorm
from gradring.nn.shape import Flatten
from gradring.planned import getter

__all__ = [
    "GELU",
    "BatchNorm1d",
    "Dropout",
    "Embedding",
    "Flatten",
    "Function",
    "Layer",
    "LayerNorm",
    "Linear",
    "ParameterSpec",
    "RMSNorm",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Tanh",
]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.nn")
