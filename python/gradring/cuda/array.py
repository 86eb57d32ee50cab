"""Array: elements in the memory of a CUDA device."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gradring.cuda import layout, streams
from gradring.cuda.dtypes import dlpack_code, numbers

__all__ = ["Array", "assign", "copied", "empty"]

_CPU, _CUDA = 1, 2  # DLPack's numbers for kinds of devices
_NEW_MEMORY = "and this needs new memory, which no graph can get: make the array before the capture begins"


class Array:
    """An array of any strides in the memory of a CUDA device, which it keeps alive.

    It computes nothing: ``gr.ops`` and CuPy do. ``array[...] = values`` and ``array[3:5] = values`` write into it,
    ``array[3:5]`` is a view, and ``numpy()`` and ``numpy.asarray`` copy it to the host. All of this is ordered on the current
    stream (``gr.cuda.current_stream``). Operators and indexing with arrays raise ``TypeError``.
    """

    __array_priority__ = 100
    __array_ufunc__ = None  # NumPy's functions would copy to the host without a word
    __hash__ = None  # type: ignore[assignment]

    shown: Any = None
    """The array of another library that a caller gets in place of this one."""

    def __init__(
        self,
        memory: Any,
        offset: int,
        shape: Sequence[int],
        dtype: DTypeLike,
        strides: Sequence[int] | None = None,
        read_only: bool = False,
    ) -> None:
        self._memory, self._offset = memory, offset
        self.shape: tuple[int, ...] = tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        dense = layout.dense_strides(self.shape, self.dtype.itemsize)
        self.strides: tuple[int, ...] = dense if strides is None else tuple(strides)
        self.read_only = read_only

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return self.size * self.dtype.itemsize

    @property
    def device(self) -> str:
        """The device whose memory it is, such as ``"cuda:0"``."""
        return f"cuda:{self.device_number}"

    @property
    def device_number(self) -> int:
        """The number of that device."""
        return int(self._memory.device)

    @property
    def address(self) -> int:
        """The address of the first element in the device's memory."""
        return int(self._memory.address) + self._offset

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie in C order without gaps."""
        pairs = zip(self.shape, self.strides, layout.dense_strides(self.shape, self.itemsize), strict=True)
        return self.size == 0 or all(extent == 1 or own == dense for extent, own, dense in pairs)

    # Other libraries

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3. ``stream`` is the current stream: a consumer waits there for what was queued for this array."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, self.read_only),
            "strides": None if self.contiguous else self.strides,
            "stream": streams.interface_stream(streams.current_stream()),
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self.device_number

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """DLPack 1.x. ``stream`` is the consumer's: None and 1 the legacy default stream, 2 that of the thread, -1 no order,
        else its handle; that stream waits for what the current one has to do. ``dl_device`` may be the CPU, for a copy."""
        versioned = max_version is not None and max_version[0] >= 1
        if dl_device is not None and dl_device[0] == _CPU:
            if copy is False:
                raise BufferError(f"[__dlpack__] dl_device is the CPU and copy is False: {self.device} needs a copy")
            host = self.numpy()
            return host.__dlpack__() if not versioned else _host_capsule(host)
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(
                f"[__dlpack__] dl_device is {tuple(dl_device)}: must be (2, {self.device_number}) or (1, 0)"
            )
        if self.read_only and not versioned and not copy:
            raise BufferError("[__dlpack__] the array is read-only, which max_version=(1, 0) can say and None cannot")
        consumer = _consumer(stream)
        array = copied(self) if copy else self
        strides = layout.dense_strides(array.shape, array.itemsize) if array.contiguous else array.strides
        if any(stride % array.itemsize for stride in strides):
            raise BufferError(
                f"[__dlpack__] the strides {strides} are no multiples of the {array.itemsize} bytes of {array.dtype}: "
                "copy the array"
            )
        if consumer is not None:
            streams.order(self.device_number, streams.current_stream(), consumer)
        if consumer is not None and streams.native().Stream.lasts(consumer):
            array.record_stream(consumer)
        elif hasattr(array._memory, "share"):
            array._memory.share()
        return streams.native().to_dlpack(
            array,
            array.address,
            list(array.shape),
            [stride // array.itemsize for stride in strides],
            dlpack_code(array.dtype),
            array.device_number,
            array.read_only,
            bool(copy),
            versioned,
        )

    # Copies to and from the host

    def numpy(self) -> NDArray[Any]:
        """A copy in the host's memory, of what was queued on the current stream so far. It waits for that."""
        out = np.empty(self.shape, self.dtype)
        if out.size:
            streams.require_no_capture("cuda.Array.numpy")
            self.require_living("cuda.Array.numpy")
            dense = self if self.contiguous else copied(self)
            handle = streams.current_stream()
            streams.native().read(self.device_number, handle, dense.address, out.reshape(-1).view(np.uint8))
        return out

    def copy(self) -> NDArray[Any]:
        """The same as ``numpy()``: an array that later steps do not change."""
        return self.numpy()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("[cuda.Array] its memory is on a device: NumPy can only have a copy")
        out = self.numpy()
        return out if dtype is None else out.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Array:
        shape, strides, offset = layout.part(self, key)
        return Array(self._memory, self._offset + offset, shape, self.dtype, strides, self.read_only)

    def __setitem__(self, key: Any, values: ArrayLike | Array) -> None:
        if self.read_only:
            raise ValueError("[cuda.Array] it is read-only")
        part = self[key]
        if part.size:
            _write(part, values)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def reshape(self, *shape: Any) -> Array:
        """A view of another shape; one extent may be -1. ``ValueError`` unless the array has no gaps."""
        if not self.contiguous:
            raise ValueError("[cuda.Array] reshape: its elements have gaps between them; use gr.cuda.copied(array)")
        look = np.lib.stride_tricks.as_strided(np.empty(0, "i1"), self.shape, layout.dense_strides(self.shape, 1))
        new = look.reshape(*shape).shape
        return Array(self._memory, self._offset, new, self.dtype, None, self.read_only)

    def require_living(self, argument: str) -> None:
        """Raise ``ValueError``, which names ``argument``, if another library has freed the memory under the array. Memory that
        is free in that library's pool cannot be told from memory in use."""
        owner = getattr(self._memory, "owner", None)
        if owner is None or not self.size:
            return
        low, high = layout.span(self)
        if streams.native().locate(low, high - low)[0] != "device":
            raise ValueError(
                f"[{argument}] the memory under this cuda.Array was freed by its owner, a {type(owner).__name__}, which must "
                "not free it while arrays over it are in use: copy it before, with gr.cuda.copied(array)"
            )

    def record_stream(self, stream: Any) -> None:
        """Say that work on this stream uses the array, too: its memory is not used again before that work is done."""
        # Memory of a trainer has no such method: it is freed, which waits for all work of the device.
        if hasattr(self._memory, "record_stream"):
            streams.record(self._memory, stream)

    def __repr__(self) -> str:
        return f"cuda.Array({self.shape}, {self.dtype}, {self.device!r})"


def _refusal(sign: str) -> Any:
    def refuse(self: Array, *_: Any) -> NoReturn:
        raise TypeError(
            f"[cuda.Array] {sign}: it computes nothing; use cupy.asarray(array), or write array[...] = values"
        )

    return refuse


for _name, _sign in {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "matmul": "@",
    "and": "&",
    "or": "|",
    "xor": "^",
    "lshift": "<<",
    "rshift": ">>",
}.items():
    setattr(Array, f"__{_name}__", _refusal(_sign))
    setattr(Array, f"__r{_name}__", _refusal(_sign))
    setattr(Array, f"__i{_name}__", _refusal(f"{_sign}="))
for _name, _sign in {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "neg": "-",
    "abs": "abs",
}.items():
    setattr(Array, f"__{_name}__", _refusal(_sign))


def empty(shape: int | Sequence[int], dtype: DTypeLike = np.float32, device: int = 0) -> Array:
    """A new array of numbers, which are undefined. Its memory belongs to the current stream.

    Raises ``DeviceUnavailable`` if there is no such device, and ``MemoryError`` with the bytes that are wanted and free.
    """
    try:
        whole = tuple(map(operator.index, shape if isinstance(shape, Sequence) else (shape,)))
        device = operator.index(device)
    except TypeError:
        raise TypeError(f"[cuda.empty] shape is {shape!r} and device is {device!r}: must be integers") from None
    dtype = numbers(f"[cuda.empty] dtype is {dtype}", dtype)
    bytes_ = math.prod(whole) * dtype.itemsize
    if min(whole, default=0) < 0 or bytes_ >= 1 << 63:
        raise ValueError(f"[cuda.empty] shape is {whole}: extents must not be negative, nor have more than 2**63 bytes")
    kind = streams.native().DeviceBlock
    block = streams.made("cuda.empty", device, kind, max(bytes_, 1), *streams.current(), why=_NEW_MEMORY)
    return Array(block, 0, whole, dtype)


def copied(array: Array) -> Array:
    """A copy without gaps on the same device, queued on the current stream."""
    out = empty(array.shape, array.dtype, array.device_number)
    assign(out, array, array.strides)
    return out


def assign(to: Array, values: Array, strides: Sequence[int]) -> None:
    """Queue a copy of ``values``, read with these strides, into an array of one shape and dtype."""
    if to.size:
        streams.native().copy(
            to.device_number,
            streams.current_stream(),
            to.address,
            list(to.strides),
            values.address,
            list(strides),
            list(to.shape),
            to.itemsize,
        )


def _write(part: Array, values: ArrayLike | Array) -> None:
    part.require_living("cuda.Array: array[...] = values")
    if isinstance(values, Array):
        values.require_living("cuda.Array: values")
    if isinstance(values, Array) and values.device_number == part.device_number and values.dtype == part.dtype:
        strides = layout.broadcast(values, part.shape)
        if layout.may_share(part, values):
            values = copied(values)
            strides = layout.broadcast(values, part.shape)
        assign(part, values, strides)
        return
    streams.require_no_capture("cuda.Array: array[...] = values")
    host = values.numpy() if isinstance(values, Array) else np.asarray(values)
    if part.contiguous:
        whole = np.empty(part.shape, part.dtype)
        whole[...] = host
        streams.native().write(
            part.device_number, streams.current_stream(), part.address, whole.reshape(-1).view(np.uint8)
        )
        return
    dense = empty(part.shape, part.dtype, part.device_number)
    _write(dense, host)
    assign(part, dense, dense.strides)


def _consumer(stream: Any) -> int | None:
    """The handle of a consumer's stream by DLPack's rules; None: no order is wanted."""
    if stream is None:
        return streams.LEGACY
    if not isinstance(stream, int) or isinstance(stream, bool):
        raise TypeError(f"[__dlpack__] stream is {stream!r}: must be None or an integer")
    if stream == -1:
        return None
    if stream == 0 or stream < -1:
        raise ValueError(
            f"[__dlpack__] stream is {stream}: must be None or 1 (the legacy default stream), 2 (the thread's), -1 (no order) "
            "or a handle; 0 is ambiguous"
        )
    return stream


def _host_capsule(host: NDArray[Any]) -> Any:
    try:
        return host.__dlpack__(max_version=(1, 0))
    except TypeError:  # NumPy before 2.1
        return host.__dlpack__()
