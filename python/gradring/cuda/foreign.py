"""Arrays that other libraries have on a device, as this library's arrays: without a copy, and ordered by events."""

from __future__ import annotations

import atexit
import operator
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradring.cuda import streams
from gradring.cuda.array import Array
from gradring.cuda.dtypes import from_dlpack_code, from_typestr
from gradring.cuda.layout import dense_strides
from gradring.errors import reason

__all__ = ["as_array", "from_dlpack", "is_device_array"]

_CPU, _CUDA, _CUDA_MANAGED = 1, 2, 13  # DLPack's numbers for kinds of devices


_waiting: deque[tuple[Any, list[Any]]] = deque()  # owners, and marks on the streams that must pass them before the owners die


atexit.register(_waiting.clear)


class _Foreign:
    """Memory that another library's object keeps alive."""

    def __init__(self, owner: Any, address: int, device: int) -> None:
        self.owner, self.address, self.device = owner, address, device
        self._streams: dict[int, Any] = {}
        _let_go()

    def record_stream(self, handle: int, keep: Any = None) -> None:
        self._streams[handle] = keep

    def __del__(self) -> None:
        if not self._streams or sys.is_finalizing():
            return
        try:
            marks = [streams.native().Mark(self.device, handle) for handle in self._streams]
        except Exception:  # the device is lost, or this is a forked child: nothing uses the memory
            return
        _waiting.append((self.owner, marks))
        _let_go()


def _let_go() -> None:
    """Drop the owners whose memory no stream uses any more. Threads and destructors may call it at any time."""
    for _ in range(len(_waiting)):
        try:
            entry = _waiting.popleft()
        except IndexError:
            return
        if not all(mark.is_done for mark in entry[1]):
            _waiting.append(entry)


def is_device_array(value: Any) -> bool:
    """Whether a value is an array in the memory of a CUDA device."""
    return (
        isinstance(value, Array) or _interface(value) is not None or _dlpack_device(value)[0] in (_CUDA, _CUDA_MANAGED)
    )


def _interface(value: Any) -> Any:
    try:
        found = getattr(value, "__cuda_array_interface__", None)
    except Exception:  # PyTorch raises for tensors of the CPU, and for those that autograd records
        return None
    return found if isinstance(found, Mapping) else None


def _dlpack_device(value: Any) -> tuple[int, int]:
    if not hasattr(value, "__dlpack__"):
        return 0, 0
    try:
        kind, number = value.__dlpack_device__()
        return int(kind), int(number)
    except Exception:
        return 0, 0


def as_array(value: Any, argument: str = "array", device: int | None = None) -> Array:
    """A device array of another library as an ``Array`` over the same memory, which it keeps alive.

    It reads ``__cuda_array_interface__`` (the current stream waits for its ``stream``, and the host for nothing), or DLPack
    where that has no ``stream``, which alone orders what its producer still computes, or no dtype of NumPy (bfloat16).
    ``ValueError`` or ``TypeError`` names ``argument`` if its memory was freed, lies in the host's memory or on another device
    than ``device``, or if it is masked.
    """
    if isinstance(value, Array):
        array = value
        array.require_living(argument)
    else:
        detached = value.detach() if hasattr(value, "detach") else value
        interface = _interface(detached)
        kind, number = _dlpack_device(detached)
        says_all = interface is not None and "stream" in interface and str(interface.get("typestr"))[1:2] != "V"
        if interface is None or (kind in (_CUDA, _CUDA_MANAGED) and not says_all):
            array = from_dlpack(detached, argument)
        else:
            array = _of_interface(detached, interface, argument, number if kind == _CUDA else device or 0)
    if device is not None and array.device_number != device:
        raise ValueError(f"[{argument}] it is on {array.device}: must be on cuda:{device}; copy it")
    return array


def _of_interface(value: Any, interface: Mapping[str, Any], argument: str, empty_on: int) -> Array:
    kind = type(value).__name__
    if interface.get("mask") is not None:
        raise TypeError(f"[{argument}] a {kind} with a mask hides values: give it without one")
    of = f"[{argument}] the __cuda_array_interface__ of this {kind}"
    missing = [name for name in ("typestr", "shape", "data") if name not in interface]
    if missing:
        raise TypeError(f"{of} has no {', '.join(missing)}, without which nothing says where its elements are")
    dtype = from_typestr(argument, interface["typestr"])
    shape = _integers(of, "shape", interface["shape"])
    data = interface["data"]
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"{of} has the data {data!r}: must be a tuple of the address and whether it is read-only")
    (address,), read_only = _integers(of, "data", data[:1]), data[1]
    strides = interface.get("strides")
    strides = dense_strides(shape, dtype.itemsize) if strides is None else _integers(of, "strides", strides)
    number = _place(argument, kind, address, shape, strides, dtype, empty_on)
    stream = interface.get("stream")
    if stream is not None:
        if not isinstance(stream, int) or stream <= 0:
            raise ValueError(
                f"[{argument}] the stream of its __cuda_array_interface__ is {stream!r}: must be None, 1 (the legacy default "
                "stream), 2 (the thread's) or a handle"
            )
        streams.order(number, stream, streams.current_stream())
    return Array(_Foreign(value, address, number), 0, shape, dtype, strides, bool(read_only))


def _integers(of: str, name: str, values: Any) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise TypeError(f"{of} has the {name} {values!r}: must be a tuple of integers") from None


def _place(
    argument: str, kind: str, address: int, shape: Any, strides: Any, dtype: np.dtype[Any], empty_on: int
) -> int:
    """The number of the device that has all elements of an array; ``empty_on`` if it has none."""
    if len(strides) != len(shape) or min(shape, default=0) < 0:
        raise ValueError(f"[{argument}] its shape is {shape} and its strides are {strides}: they do not fit together")
    if 0 in shape:
        return empty_on
    itemsize = dtype.itemsize
    aligned = (address, *(stride for extent, stride in zip(shape, strides, strict=True) if extent > 1))
    if any(number % dtype.alignment for number in aligned):
        raise ValueError(
            f"[{argument}] the address {address:#x} or the strides {strides} of this {kind} are no multiples of "
            f"{dtype.alignment} bytes, which {dtype} needs: copy it"
        )
    reaches = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    low, high = sum(min(reach, 0) for reach in reaches), sum(max(reach, 0) for reach in reaches)
    where, number = streams.native().locate(max(address + low, 0), min(high - low + itemsize, 1 << 62))
    if where != "device":
        lies = "lies in the host's pinned memory" if where == "pinned" else "was freed, or never was on a device"
        raise ValueError(
            f"[{argument}] the memory of this {kind} {lies}: must be that of a living array on a CUDA device"
        )
    return int(number)


def from_dlpack(value: Any, argument: str = "from_dlpack") -> Array:
    """A tensor on a CUDA device as an ``Array`` over the same memory. Its producer makes the current stream wait for it.

    ``BufferError`` if it lies elsewhere. Read-only tensors of DLPack 1 stay read-only.
    """
    if not hasattr(value, "__dlpack__"):
        raise TypeError(f"[{argument}] a {type(value).__name__} is no array on a CUDA device: it has no __dlpack__")
    of = f"[{argument}] a {type(value).__name__} breaks DLPack's protocol"
    try:
        kind, number = value.__dlpack_device__()
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(f"{of}: __dlpack_device__() must return two numbers: {reason(error)}") from error
    if kind not in (_CUDA, _CUDA_MANAGED):
        raise BufferError(
            f"[{argument}] the tensor is on DLPack's device ({int(kind)}, {number}): must be on CUDA, (2, number)"
        )
    stream = streams.interface_stream(streams.current_stream())
    try:
        capsule = value.__dlpack__(stream=stream, max_version=(1, 1))
    except TypeError:  # a producer of DLPack before 1.0
        try:
            capsule = value.__dlpack__(stream=stream)
        except TypeError as error:
            raise TypeError(f"{of}: __dlpack__ must take stream=, and max_version= from version 1: {reason(error)}") from error
    if type(capsule).__name__ != "PyCapsule":
        raise TypeError(f"{of}: __dlpack__ returned a {type(capsule).__name__}: must be a capsule")
    tensor = streams.native().DlpackTensor(capsule)
    dtype = from_dlpack_code(*tensor.dtype)
    shape = tensor.shape
    steps = tensor.strides
    strides = dense_strides(shape, dtype.itemsize) if steps is None else tuple(s * dtype.itemsize for s in steps)
    found = _place(argument, type(value).__name__, tensor.address, shape, strides, dtype, int(number))
    return Array(_Foreign(tensor, tensor.address, found), 0, shape, dtype, strides, tensor.read_only)
