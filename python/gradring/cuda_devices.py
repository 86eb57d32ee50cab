"""Finds out why this installation cannot use a CUDA device, and which command fixes that."""

from __future__ import annotations

import ctypes
from importlib import import_module
from typing import Any, NamedTuple

from gradring.errors import DeviceUnavailable

__all__ = ["Obstacle", "obstacle", "report", "require"]

BUILD = "CUDACXX=nvcc pip install '.[cuda]' (from the source tree, with CUDA's compiler)"
NOT_BUILT = "gradring was built without CUDA"
_DRIVER = "install NVIDIA's driver: libcuda.so.1 comes with it, and nvidia-smi then shows the card"
# Errors after which CUDA works no more in their process: a kernel or the card has failed, and the context is lost.
_STICKY = dict.fromkeys(
    (214, 220, 226, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721),
    "start a new process: CUDA works no more in this one; if a new one fails, too, see nvidia-smi and the system's log",
)
_ACCESS = (
    "start a new process: a kernel of this one, of any library, has used memory that is not its own, and CUDA works no more in "
    "it; compute-sanitizer finds that kernel"
)
# Codes of the CUDA runtime, and what a user can do.
_FIXES = {
    **_STICKY,
    700: _ACCESS,
    4: "start a new process: this one is ending",
    3: "start a new process: this one was forked after CUDA had been used",
    35: "install NVIDIA's driver, of version 580 or newer for CUDA 13: see nvidia-smi",
    46: "see with nvidia-smi who uses the card exclusively",
    100: "see whether CUDA_VISIBLE_DEVICES hides the cards: nvidia-smi -L lists them",
    209: "build for this card: CMAKE_ARGS=-DCMAKE_CUDA_ARCHITECTURES=native CUDACXX=nvcc pip install '.[cuda]'",
    803: "install a driver of the kernel module's version, or restart the machine after its update",
}


class Obstacle(NamedTuple):
    """The text of an error: what is wrong, and what to do."""

    what: str
    fix: str


def report() -> dict[str, Any] | None:
    """The devices that the module ``_cuda`` found; None if this installation was built without it."""
    try:
        module = import_module("gradring._cuda")
    except ModuleNotFoundError as error:
        if error.name != "gradring._cuda":
            raise
        return None
    found: dict[str, Any] = module.devices()
    return found


def obstacle(number: int = 0) -> Obstacle | None:
    """Why device ``number`` cannot be used; None if it can."""
    try:
        found = report()
    except ImportError as error:
        return Obstacle(f"the module gradring._cuda does not load: {error}", BUILD)
    if found is None:
        return Obstacle(NOT_BUILT, BUILD)
    problem = found["problem"]
    if problem is not None:
        if problem["code"] == 35 and found["driver_version"] == 0 and not _driver_library():
            return Obstacle("no NVIDIA driver", _DRIVER)
        fix = _FIXES.get(problem["code"], "see whether nvidia-smi works")
        return Obstacle(f"{problem['call']}: {problem['text']} ({problem['name']}, {problem['code']})", fix)
    count = len(found["devices"])
    if count == 0:
        return Obstacle("no CUDA device", _FIXES[100])
    if not 0 <= number < count:
        names = ", ".join(f"cuda:{i}" for i in range(count))
        return Obstacle(f"there is no cuda:{number}", f"use one of {names}")
    return None


def _driver_library() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def require(device: str, who: str) -> int:
    """The number of ``device`` ("cuda" or "cuda:N"), or DeviceUnavailable with the text that `gradring doctor`
    prints."""
    _, _, text = device.partition(":")
    if device != "cuda" and not (device.startswith("cuda:") and text.isdecimal()):
        raise ValueError(f"[{who}] device is {device!r}: write 'cpu', 'cuda' or 'cuda:0'")
    number = int(text or 0)
    found = obstacle(number)
    if found is not None:
        raise DeviceUnavailable(f"[{who}] device {device!r}: {found.what}; {found.fix}")
    return number
