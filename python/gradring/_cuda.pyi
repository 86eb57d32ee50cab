"""
CUDA devices. Imports without a driver.
"""
from __future__ import annotations
import typing

import numpy
import numpy.typing
__all__: list[str] = [
    "DeviceArena",
    "DeviceBlock",
    "DeviceCall",
    "DeviceFeed",
    "DeviceFields",
    "DeviceUpdates",
    "DlpackTensor",
    "Engine",
    "Mark",
    "SlotLease",
    "Stream",
    "architectures",
    "copy",
    "devices",
    "locate",
    "order",
    "read",
    "require_no_capture",
    "synchronize",
    "to_dlpack",
    "trim_pools",
    "try_device",
    "write",
]
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

    def __init__(self, device: int, bytes: int, lend: typing.Any = None) -> None:
        """`lend` is a function that gives memory of another allocator for a number of bytes, as (address, owner), or None."""
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

class DeviceBlock:
    """Memory of a device's pool."""

    def __init__(self, device: int, bytes: int, stream: int, keep: typing.Any = None) -> None: ...
    @property
    def device(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def address(self) -> int: ...
    def record_stream(self, stream: int, keep: typing.Any = None) -> None:
        """Say that work on this stream uses it, too. `keep` keeps the stream alive."""
    def share(self) -> None:
        """Say that work on any streams may use it, too."""

class DeviceCall:
    """A call of an op on a device's arrays."""

    def __init__(
        self, op: str, name: str, names: typing.Sequence[tuple[str, str]], attributes: typing.Sequence[int | float]
    ) -> None: ...
    def set(
        self, operand: str, address: int, dtype: str, shape: typing.Sequence[int], strides: typing.Sequence[int]
    ) -> bool: ...
    def is_apart(self, operand: str) -> bool: ...
    def check(self) -> None: ...
    @property
    def ranks_fit(self) -> bool: ...
    def result(self, operand: str) -> tuple[list[int], str]: ...
    def run(self, device: int, library: int, stream: int) -> None: ...
    def number(self, operand: str, totals: typing.Any) -> float: ...

class DeviceFeed:
    """Brings a feed's batches to a device."""

    def __init__(self, source: typing.Any, batch_size: int, device: int, most: int) -> None: ...
    @property
    def offsets(self) -> list[int]: ...
    @property
    def slots(self) -> int: ...
    @property
    def slot_bytes(self) -> int: ...
    def next(self, seconds: float) -> typing.Any:
        """The next batch as (lease, rows); None at the end of the epoch; a number if none came in so many seconds."""

class DeviceFields:
    """Batches that are parts of arrays on the device."""

    def __init__(self, fields: typing.Sequence[tuple[int, int]], samples: int, batch_size: int) -> None: ...
    def next_rows(self) -> int: ...

class SlotLease:
    """The right to a batch's memory on a device."""

    @property
    def device(self) -> int: ...
    @property
    def address(self) -> int: ...
    def record_stream(self, stream: int, keep: typing.Any = None) -> None:
        """Say that work on this stream uses it, too. `keep` keeps the stream alive."""

class Stream:
    """A stream of its own."""

    def __init__(self, device: int, high: bool) -> None: ...
    @property
    def device(self) -> int: ...
    @property
    def handle(self) -> int: ...
    @staticmethod
    def lasts(handle: int) -> bool:
        """Whether a handle is valid until the process ends."""

class Mark:
    """Marks the end of what a stream has to do now."""

    def __init__(self, device: int, stream: int) -> None: ...
    @property
    def is_done(self) -> bool: ...

class DeviceUpdates:
    """Updates of all parameters of a user's own step, by few launches."""

    losses: typing.ClassVar[int]
    """The most entries between two reports."""

    def __init__(
        self,
        device: int,
        groups: typing.Sequence[tuple[list[DeviceCall], int]],
        most_rates: int,
        check: bool,
        limit: float,
        stream: int,
        lend: typing.Any = None,
    ) -> None:
        """Each group is a list of DeviceCalls of one rule and dtype, and the number of its learning rate. `lend` is that of
        DeviceArena."""
    def loss(self, address: int, dtype: str, entry: int, stream: int) -> None:
        """Keep the loss of an entry, a float32 or float64 on the device."""
    def add(
        self, sums: typing.Sequence[int], gradients: typing.Sequence[int], samples: float, first: bool, stream: int
    ) -> None:
        """Add gradients times their samples to sums, which begin with the first ones."""
    def update(
        self,
        gradients: typing.Sequence[int],
        rates: typing.Sequence[float],
        number: int,
        weight: float,
        entry: int,
        stream: int,
    ) -> None:
        """Update all parameters by these gradients, divided by the weight."""
    @property
    def updated(self) -> int:
        """How many parameters the last `update` has updated, if it has failed."""
    def queue_report(self, stream: int) -> None:
        """Queue a report of all entries so far."""
    def take_report(self, wait: bool) -> tuple[str, int, int, numpy.typing.NDArray[numpy.float64]] | None:
        """The fault, its entry and its parameter, and the losses; None if the report has not come."""
    def clear_fault(self, stream: int) -> None:
        """Let later entries run after a fault."""

class DlpackTensor:
    """A tensor that came in a capsule of DLPack, which it keeps alive."""

    def __init__(self, capsule: typing.Any) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def place(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> tuple[int, int, int]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...] | None: ...

def locate(address: int, bytes: int) -> tuple[str, int]:
    """Where memory lies: ('device', number), ('pinned', -1), or ('none', -1) if no device has it."""

def order(device: int, before: int, after: int) -> None:
    """Make a stream wait for all work that another stream has now, before it begins new work. The host does not wait."""

def require_no_capture(who: str, stream: int, why: str | None = None) -> None:
    """Raise GradringError, which names `who`, if the stream is capturing a graph. The capture goes on."""

def synchronize(device: int, stream: int) -> None:
    """Wait until a stream has done all it has to do."""

def read(device: int, stream: int, address: int, to: typing.Any) -> None:
    """Copy from the device into an array without gaps, and wait for the copy."""

def write(device: int, stream: int, address: int, from_: typing.Any) -> None:
    """Copy an array without gaps to the device, and wait for the copy."""

def copy(
    device: int,
    stream: int,
    to: int,
    to_strides: typing.Sequence[int],
    from_: int,
    from_strides: typing.Sequence[int],
    shape: typing.Sequence[int],
    item: int,
) -> None:
    """Queue a copy between two arrays of this shape on one device. Strides are in bytes."""

def to_dlpack(
    owner: typing.Any,
    address: int,
    shape: typing.Sequence[int],
    strides: typing.Sequence[int],
    dtype: tuple[int, int],
    device: int,
    read_only: bool,
    copied: bool,
    versioned: bool,
) -> typing.Any:
    """A capsule over an array that `owner` keeps alive. Strides are in elements, and dtype is (code, bits)."""

def trim_pools() -> None:
    """Free the free blocks of all pools."""

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
        tune: bool = False,
        tf32: bool = False,
        lend: typing.Any = None,
    ) -> None: ...
    def algorithms(self) -> str: ...
    @staticmethod
    def reads_algorithms(text: str) -> bool: ...
    def restore_algorithms(self, text: str) -> bool | None: ...
    def forget_algorithms(self) -> None: ...
    def __getattr__(self, name: str) -> typing.Any: ...
