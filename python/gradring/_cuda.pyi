"""
CUDA devices. Imports without a driver.
"""
from __future__ import annotations
import typing
__all__: list[str] = ["architectures", "devices", "try_device"]
architectures: str
def devices() -> dict[str, typing.Any]:
    """
    Devices, versions of driver and runtime, and what is wrong, if anything.
    """
def try_device(device: int) -> dict[str, typing.Any] | None:
    """
    Run one small kernel; None if it works, else what is wrong.
    """
