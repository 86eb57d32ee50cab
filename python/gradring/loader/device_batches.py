"""A loader's batches in the memory of a CUDA device."""

from __future__ import annotations

import functools
import gc
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from gradring.cuda import Array, streams
from gradring.cuda.leased import packed
from gradring.errors import LoaderError
from gradring.loader.passes import Pass
from gradring.loader.pipeline_maker import warn_if_pageable
from gradring.sources._fields import Field

__all__ = ["DeviceBatches", "require_fields"]

_SLICE = 0.05  # seconds between two looks at signals and deadlines


def require_fields(fields: Sequence[Field], device: str) -> None:
    """``TypeError`` for a field whose dtype no device's array has."""
    for field in fields:
        if field.dtype.kind not in "biufc" and field.dtype.name != "bfloat16":
            raise TypeError(f"[Loader] field {field.name} is of dtype {field.dtype}: on {device} it must be numbers")


class DeviceBatches:
    """The iterator of a pass whose batches are copied to a device: in CuPy's arrays where CuPy is, else ``gr.cuda.Array``.

    The stream that is current when a batch is handed out waits for its copy. The batch's memory is used again when its arrays
    have died and the streams have done their work: that one, the one current at their death, and those of ``record_stream``,
    which a batch of several arrays has, too.
    """

    def __init__(
        self,
        begun: Pass,
        fields: Sequence[Field],
        kind: str,
        *,
        batch_size: int,
        device: int,
        most: int,
        timeout: float,
    ) -> None:
        self._pass: Pass | None = begun
        self._fields, self._kind, self._timeout = fields, kind, timeout
        self._names = [field.name for field in fields]
        self._native = import_module("gradring._cuda").DeviceFeed(begun.feed(), batch_size, device, most)
        self._offsets: list[int] = self._native.offsets
        self._turn, self._reader = threading.Lock(), 0  # the thread that reads now

    def __iter__(self) -> DeviceBatches:
        return self

    def __next__(self) -> Any:
        """One thread reads at a time; a second one waits for its turn."""
        me = threading.get_ident()
        if self._reader == me:  # in a function of the source, or in a destructor that garbage collection calls
            raise LoaderError("[loader] this iterator is being read by this thread already, further up its stack")
        streams.require_no_capture("loader")  # here, because an error further down ends the iterator
        with self._turn:
            self._reader = me
            try:
                return self._read()
            finally:
                self._reader = 0

    def _read(self) -> Any:
        begun = self._pass
        if begun is None:
            raise StopIteration
        position = begun.lease.pipeline.position
        try:
            got = self._next()
        except BaseException:
            self._pass, self._native = None, None
            begun.left(position)  # not behind a batch that was read and did not come
            raise
        if got is None:  # the epoch is over
            self._pass, self._native = None, None
            begun.finished()
            raise StopIteration
        lease, rows = got
        warn_if_pageable(begun.lease.pipeline)  # slots may have come with this batch
        arrays = []
        for field, offset in zip(self._fields, self._offsets, strict=True):
            arrays.append(_shown(Array(lease, offset, (rows, *field.shape), field.dtype)))
        return packed(self._kind, self._names, arrays, lease, self._native.slot_bytes)

    def _next(self) -> Any:
        since, collected = time.monotonic(), False
        begun = self._pass
        assert begun is not None
        while True:
            got = self._native.next(_SLICE)
            if not isinstance(got, int):
                return got
            waited = time.monotonic() - since
            if begun.lease.pipeline.closed:  # while all slots are held, nothing asks the pipeline
                begun.closed()
            if not got:
                begun.waited(waited, -1)  # raises if a worker is stuck or dead
            if got and not collected:  # reference cycles may hold batches
                collected = True
                gc.collect()
            if got and waited > self._timeout:
                raise LoaderError(
                    f"[loader] {got} batches are held, which is all slots on the device ({self._native.slot_bytes} bytes "
                    f"each), and none was given back within {waited:.1f} s (timeout): drop batches (or copy what you keep), or "
                    "raise memory_budget"
                )


class _Ordered:
    """An array that CuPy reads without waiting on the host: its current stream waits for the copy already."""

    def __init__(self, array: Array) -> None:
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, "stream": None}
        self.array = array


@functools.cache
def _installed() -> Any:
    try:
        return import_module("cupy")
    except ImportError:  # there is none, or one that does not work here
        return None


def _shown(array: Array) -> Any:
    cupy = sys.modules.get("cupy") or _installed()
    if cupy is None or array.dtype.name == "bfloat16":
        return array
    return cupy.asarray(_Ordered(array))
