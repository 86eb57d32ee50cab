"""Memory and engines of the device that a model is on: the CPU, or a CUDA device."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from gradring import _core, cuda_devices

__all__ = ["CPU", "engine", "lender", "named", "number_of", "products_library", "require_no_capture", "reserve"]

CPU = "cpu"


def named(device: str, who: str) -> str:
    """The device's full name, such as ``"cuda:0"`` for ``"cuda"``. Raises ``DeviceUnavailable`` if it cannot be used, and
    ``GradringError`` while the current stream captures a graph, because the caller will take memory of it."""
    if not isinstance(device, str):
        raise TypeError(f"[{who}] device must be a text, 'cpu', 'cuda' or 'cuda:0', got {device!r}")
    if device == CPU:
        return CPU
    number = cuda_devices.require(device, who)
    require_no_capture(device, who)
    return f"cuda:{number}"


def number_of(device: str) -> int:
    """The number of a CUDA device."""
    return int(device.partition(":")[2])


def require_no_capture(device: str, who: str) -> None:
    """Raise ``GradringError`` if the current stream is capturing a graph, and the device is not the CPU. Each function of the
    library that waits for a device, or takes its memory, begins with this: see ``gradring.cuda.streams.require_no_capture``."""
    if device != CPU:
        import_module("gradring.cuda.streams").require_no_capture(who)


def reserve(device: str, size: int) -> Any:
    """An arena of ``size`` zero bytes on this device, from CuPy's pool where CuPy is in use. Raises ``MemoryError`` with the
    bytes that are wanted."""
    if device == CPU:
        return _core.SharedArena(size)
    require_no_capture(device, "memory")
    number = number_of(device)
    return import_module("gradring._cuda").DeviceArena(number, size, lender(number))


def lender(number: int) -> Callable[[int], tuple[int, Any] | None]:
    """What gives the native parts memory of CuPy's pool on this device."""
    return functools.partial(_lent, number)


def _lent(number: int, size: int) -> tuple[int, Any] | None:
    """Memory of CuPy's pool: its address, and what keeps it. None where CuPy is not in use."""
    cupy: Any = getattr(sys.modules.get("cupy"), "cuda", None)
    if not hasattr(cupy, "alloc"):
        return None
    try:
        # Blocks of CuPy's pool belong to the stream that is current now.
        with cupy.Device(number), cupy.ExternalStream(_own_stream(number).handle):
            block = cupy.alloc(size)
    except MemoryError:  # the device then says how many bytes are wanted and free
        return None
    return int(block.ptr), block


@functools.cache
def _own_stream(device: int) -> Any:
    return import_module("gradring.cuda").Stream(device)


@functools.cache
def products_library() -> int:
    """The handle of cuBLASLt, which multiplies matrices on devices; 0 on the software device, which has its own."""
    if import_module("gradring._cuda").devices()["software"]:
        return 0
    return int(import_module("gradring.cuda_libraries").cublaslt().handle)


def engine(
    device: str,
    arenas: Any,
    lanes: int,
    accumulate: int,
    seed: int,
    check_finite: bool,
    tune: bool = False,
    tf32: bool = False,
) -> Any:
    """The native engine that runs programs over these arenas of the device. With ``tune``, one of a CUDA device chooses the
    algorithm of each matrix product by timing; the CPU has one algorithm. With ``tf32``, these products read tf32."""
    if device == CPU:
        return _core.Engine(arenas, lanes, accumulate, seed, check_finite)
    require_no_capture(device, "Engine")
    cuda, number, library = import_module("gradring._cuda"), number_of(device), products_library()
    return cuda.Engine(number, library, arenas, lanes, accumulate, seed, check_finite, tune, tf32, lender(number))
