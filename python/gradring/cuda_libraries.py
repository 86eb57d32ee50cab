"""NVIDIA's libraries that a CUDA device needs: found by cuda-pathfinder, loaded once, and never closed."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from typing import NamedTuple

from gradring.errors import DeviceUnavailable

__all__ = ["MAJOR", "Library", "cublaslt"]

MAJOR = 13  # the version of cuBLAS whose functions the module _cuda declares
_FIX = f"pip install 'nvidia-cublas>={MAJOR},<{MAJOR + 1}'"


class Library(NamedTuple):
    """A library that is loaded: its path, its version as a number such as 130000, and what dlopen returned."""

    path: str
    version: int
    handle: int


@cache
def cublaslt(who: str = "Trainer") -> Library:
    """Load cuBLASLt. Raises DeviceUnavailable, which says what is missing and the command that installs it."""
    try:
        pathfinder = import_module("cuda.pathfinder")
    except ImportError:
        raise DeviceUnavailable(f"[{who}] cuda-pathfinder is missing; pip install 'gradring[cuda]'") from None
    try:
        path = str(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path)
        loaded = ctypes.CDLL(path)
    except (RuntimeError, OSError) as error:
        said = " ".join(str(error).split())  # the finder's errors have several lines
        raise DeviceUnavailable(f"[{who}] cuBLASLt is not found: {said}; {_FIX}") from error
    try:
        function = loaded.cublasLtGetVersion
    except AttributeError:
        raise DeviceUnavailable(f"[{who}] {path} has no cublasLtGetVersion; {_FIX}") from None
    function.restype = ctypes.c_size_t
    version = int(function())
    if version // 10000 != MAJOR:
        raise DeviceUnavailable(f"[{who}] {path} is cuBLASLt {version}: must be of major version {MAJOR}; {_FIX}")
    return Library(path, version, int(loaded._handle))
