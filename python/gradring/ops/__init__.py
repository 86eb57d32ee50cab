"""Native kernels on NumPy arrays: arrays in, arrays out, every core used, the GIL released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring._core import (
    adam_update,
    adamw_update,
    binary_cross_entropy,
    binary_cross_entropy_vjp,
    dropout,
    dropout_vjp,
    gelu,
    gelu_vjp,
    linear,
    linear_vjp,
    log_softmax,
    log_softmax_vjp,
    matmul,
    mse,
    mse_vjp,
    relu,
    relu_vjp,
    sgd_update,
    sigmoid,
    sigmoid_vjp,
    silu,
    silu_vjp,
    softmax,
    softmax_cross_entropy,
    softmax_cross_entropy_vjp,
    softmax_vjp,
    tanh,
    tanh_vjp,
)
from gradring.planned import getter

__all__ = [
    "adam_update",
    "adamw_update",
    "binary_cross_entropy",
    "binary_cross_entropy_vjp",
    "dropout",
    "dropout_vjp",
    "gelu",
    "gelu_vjp",
    "linear",
    "linear_vjp",
    "log_softmax",
    "log_softmax_vjp",
    "matmul",
    "mse",
    "mse_vjp",
    "relu",
    "relu_vjp",
    "sgd_update",
    "sigmoid",
    "sigmoid_vjp",
    "silu",
    "silu_vjp",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_vjp",
    "softmax_vjp",
    "tanh",
    "tanh_vjp",
]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.ops")
