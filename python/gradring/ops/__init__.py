"""Native kernels on NumPy arrays: arrays in, arrays out, every core used, the GIL released."""

from __future__ import annotations

from gradring._core import linear, linear_vjp, matmul

__all__ = ["linear", "linear_vjp", "matmul"]
