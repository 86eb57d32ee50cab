"""
CUDA devices. Imports without a driver.
"""
from __future__ import annotations
import typing
__all__: list[str] = ["DeviceArena", "Engine", "architectures", "devices", "try_device"]
architectures: str
def devices() -> dict[str, typing.Any]:
    """
    Devices, versions of driver and runtime, and what is wrong, if anything.
    """
def try_device(device: int) -> dict[str, typing.Any] | None:
    """
    Run one small kernel; None if it works, else what is wrong.
    """

class DeviceArena:
    """Zeroed memory of a CUDA device."""

    def __init__(self, device: int, bytes: int) -> None: ...
    @property
    def device(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def address(self) -> int: ...
    def read(self, offset: int, to: typing.Any) -> None:
        """Copy from byte `offset` on into an array without gaps."""
    def write(self, offset: int, from_: typing.Any) -> None:
        """Copy an array without gaps to byte `offset`."""

class Engine:
    """Programs, arenas and counts of one model on a CUDA device, with the methods of ``_core.Engine``."""

    def __init__(
        self,
        device: int,
        library: int,
        arenas: typing.Sequence[tuple[str, str, DeviceArena]],
        lanes: int,
        accumulate: int,
        seed: int,
        check_finite: bool,
    ) -> None: ...
    def __getattr__(self, name: str) -> typing.Any: ...
