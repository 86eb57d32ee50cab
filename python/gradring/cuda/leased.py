"""Batches of a loader on a device: leases of a slot, of which other streams can be told."""

from __future__ import annotations

import weakref
from typing import Any

from gradring.cuda import streams
from gradring.cuda.array import Array
from gradring.cuda.foreign import as_array, is_device_array

__all__ = ["packed", "record_stream"]

# The living leases by device and by the addresses where they begin and end.
_leases: weakref.WeakValueDictionary[tuple[int, int, int], Any] = weakref.WeakValueDictionary()


class _Batch:
    """A batch of several arrays, which share a lease. Copies and pickles of it are plain containers of their arrays.

    It does not keep the lease alive, so a container whose arrays were taken out and dropped holds no slot."""

    __slots__ = ()

    _lease: weakref.ref[Any] | None

    def record_stream(self, stream: Any) -> None:
        """Say that work on this stream uses the batch, too: its memory is not used again before that work is done. None is the
        current stream."""
        lease = None if self._lease is None else self._lease()
        if lease is not None:
            streams.record(lease, stream)

    def __copy__(self) -> Any:
        return self._plain()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        from copy import deepcopy

        return deepcopy(self._plain(), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        plain = self._plain()
        return type(plain), (list(plain.items()) if isinstance(plain, dict) else list(plain),)

    def _plain(self) -> Any:
        raise NotImplementedError


class TupleBatch(_Batch, tuple[Any, ...]):
    """A batch of a tuple source."""

    def _plain(self) -> tuple[Any, ...]:
        return tuple(self)


class ListBatch(_Batch, list[Any]):
    """A batch of a list source."""

    def _plain(self) -> list[Any]:
        return list(self)


class DictBatch(_Batch, dict[str, Any]):
    """A batch of fields with names."""

    def _plain(self) -> dict[str, Any]:
        return dict(self)


def packed(kind: str, names: list[str], arrays: list[Any], lease: Any, size: int) -> Any:
    """The arrays of a batch in the container of this ``kind``. Its slot has ``size`` bytes."""
    _leases[lease.device, lease.address, lease.address + size] = lease
    if kind == "array":
        return arrays[0]
    batch: Any
    if kind == "dict":
        batch = DictBatch(zip(names, arrays, strict=True))
    else:
        batch = TupleBatch(arrays) if kind == "tuple" else ListBatch(arrays)
    batch._lease = weakref.ref(lease)
    return batch


def record_stream(value: Any, stream: Any) -> None:
    """Say that work on ``stream`` uses ``value``, too: its memory is not used again before that work is done.

    ``value`` is a ``gr.cuda.Array``, a batch of a loader with ``device="cuda"``, or an array of one, also one of CuPy,
    which has no ``record_stream`` of its own. ``ValueError`` for others: only their library knows their memory.
    """
    if isinstance(value, (Array, _Batch)):
        value.record_stream(stream)
        return
    if not is_device_array(value):
        raise TypeError(f"[record_stream] a {type(value).__name__} is neither a batch nor an array on a CUDA device")
    array = as_array(value, "record_stream")
    if not array.size:
        return
    for found in _leases.valuerefs():
        device, begin, end = found.key
        lease = found()
        if lease is not None and device == array.device_number and begin <= array.address < end:
            streams.record(lease, stream)
            return
    raise ValueError(
        f"[record_stream] this {type(value).__name__} is neither a gr.cuda.Array nor of a loader's batch: tell the library "
        "that made it"
    )
