"""Arrays in the memory of a CUDA device, where CuPy is not installed.

``trainer.params`` of a trainer on a device are such arrays: any library that reads ``__cuda_array_interface__`` sees their
memory without a copy, and ``numpy()`` copies them to the host.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["Array"]


class Array:
    """An array without gaps in the memory of a CUDA device, which it keeps alive.

    It computes nothing. ``array[...] = values`` writes into all of it; ``numpy()`` and ``numpy.asarray`` copy it to the host.
    """

    def __init__(self, arena: Any, offset: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._arena, self._offset = arena, offset
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)

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
        return f"cuda:{self._arena.device}"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3. There is no stream to wait for: a trainer's methods return when the device has done their work."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._arena.address + self._offset, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def numpy(self) -> NDArray[Any]:
        """A copy in the host's memory."""
        out = np.empty(self.shape, self.dtype)
        if out.size:
            self._arena.read(self._offset, out.reshape(-1).view(np.uint8))
        return out

    def copy(self) -> NDArray[Any]:
        """The same as ``numpy()``: an array that later steps do not change."""
        return self.numpy()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("[cuda.Array] its memory is on a device: NumPy can only have a copy")
        out = self.numpy()
        return out if dtype is None else out.astype(dtype, copy=False)

    def __setitem__(self, key: Any, values: ArrayLike) -> None:
        if isinstance(values, Array):
            values = values.numpy()
        if key is Ellipsis or (isinstance(key, slice) and key == slice(None)):
            whole = np.array(np.broadcast_to(np.asarray(values), self.shape), self.dtype, order="C")
        else:
            whole = self.numpy()
            whole[key] = values
        if whole.size:
            self._arena.write(self._offset, whole.reshape(-1).view(np.uint8))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"cuda.Array({self.shape}, {self.dtype}, {self.device!r})"
