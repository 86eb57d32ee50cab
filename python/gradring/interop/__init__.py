"""Models to and from other libraries: PyTorch's modules and state dicts, and ONNX files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring.interop.onnx_file import to_onnx
from gradring.interop.pytorch import from_torch, to_torch
from gradring.planned import getter

__all__ = ["from_torch", "to_onnx", "to_torch"]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.interop")
