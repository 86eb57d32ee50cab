"""The stream on which a thread works, and the streams of other libraries."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from gradring import cuda_devices
from gradring.errors import GradringError

__all__ = [
    "Stream",
    "current_stream",
    "handle_of",
    "interface_stream",
    "native",
    "order",
    "record",
    "require_no_capture",
    "use_stream",
]

LEGACY, PER_THREAD = 1, 2  # CUDA's own handles

_chosen = threading.local()


def native() -> Any:
    """The module ``_cuda``. Raises ``DeviceUnavailable`` where this installation has none."""
    try:
        return import_module("gradring._cuda")
    except ModuleNotFoundError as error:
        if error.name != "gradring._cuda":
            raise
        cuda_devices.require("cuda", "cuda")
        raise


def made(who: str, device: int, kind: Any, *arguments: Any, why: str | None = None) -> Any:
    """``kind(device, *arguments)``. Raises ``DeviceUnavailable``, with the doctor's words, if there is no such device, and the
    error of ``require_no_capture``."""
    try:
        require_no_capture(who, why)
        return kind(device, *arguments)
    except (GradringError, ValueError):
        cuda_devices.require(f"cuda:{device}", who)
        raise


class Stream:
    """A stream of its own on a device: what it gets is ordered with nothing else, except by events.

    ``handle`` is its ``cudaStream_t``, and ``__cuda_stream__`` gives it to other libraries.
    """

    def __init__(self, device: int = 0, *, high_priority: bool = False) -> None:
        self._native = made("cuda.Stream", device, native().Stream, high_priority)

    @property
    def handle(self) -> int:
        """The ``cudaStream_t`` as a number."""
        return int(self._native.handle)

    @property
    def device(self) -> str:
        """The device of the stream, such as ``"cuda:0"``."""
        return f"cuda:{self._native.device}"

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle

    def synchronize(self) -> None:
        """Wait until the stream has done all that it has to do."""
        native().synchronize(self._native.device, self.handle)

    def __repr__(self) -> str:
        return f"cuda.Stream({self.handle:#x}, {self.device!r})"


def handle_of(stream: Any, who: str) -> int:
    """The handle of a stream: of this library, CuPy, PyTorch or anything with ``__cuda_stream__``, or a number. None is the
    current stream; 1 is the legacy default stream and 2 that of the thread, as in CUDA."""
    if stream is None:
        return current_stream()
    if hasattr(stream, "__cuda_stream__"):
        method = stream.__cuda_stream__
        given = method() if callable(method) else method
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise TypeError(f"[{who}] __cuda_stream__ is {given!r}: must be a tuple of the version, 0, and the handle")
        version, handle = given
        if version != 0:
            raise ValueError(f"[{who}] __cuda_stream__ is of version {version}: must be 0")
        return _checked(handle, who)
    for name in ("ptr", "cuda_stream"):
        if hasattr(stream, name):
            return _checked(getattr(stream, name), who)
    return _checked(stream, who)


def _checked(handle: Any, who: str) -> int:
    if not isinstance(handle, int) or isinstance(handle, bool) or handle < 0:
        raise TypeError(
            f"[{who}] stream is {handle!r}: must be a stream of gradring, CuPy or PyTorch, an object with __cuda_stream__, or "
            "the number of a cudaStream_t"
        )
    return handle


def current_stream() -> int:
    """The handle of the stream on which this thread works: that of ``use_stream``, else CuPy's current stream where CuPy is in
    use, else the legacy default stream, 0."""
    return current()[0]


def current() -> tuple[int, Any]:
    """The same handle, and the object that keeps the stream alive."""
    stack: list[tuple[int, Any]] | None = getattr(_chosen, "stack", None)
    if stack:
        return stack[-1]
    cupy = sys.modules.get("cupy")
    find = getattr(getattr(cupy, "cuda", None), "get_current_stream", None)
    if find is None:
        return 0, None
    found = find()
    return int(found.ptr), found


@contextmanager
def use_stream(stream: Any) -> Iterator[None]:
    """Make a stream this thread's current one: work of this library is queued there, or ordered with it."""
    entry = current() if stream is None else (handle_of(stream, "use_stream"), stream)
    if not hasattr(_chosen, "stack"):
        _chosen.stack = []
    _chosen.stack.append(entry)
    try:
        yield
    finally:
        _chosen.stack.pop()


def require_no_capture(who: str, why: str | None = None) -> None:
    """Raise ``GradringError`` if the current stream is capturing a graph. All that waits for the device, or takes memory,
    begins with this: CUDA would end the capture, which so goes on. ``why`` is the rest of the error's text."""
    native().require_no_capture(who, current_stream(), why)


def record(memory: Any, stream: Any) -> None:
    """Tell memory that work on a stream uses it, too."""
    memory.record_stream(*(current() if stream is None else (handle_of(stream, "record_stream"), stream)))


def interface_stream(handle: int) -> int:
    """A handle as ``__cuda_array_interface__`` and DLPack write it: 0 would be ambiguous."""
    return handle or LEGACY


def order(device: int, before: int, after: int) -> None:
    """Make stream ``after`` wait for all work that ``before`` has now, before it begins new work. The host does not wait."""
    before, after = (0 if handle == LEGACY else handle for handle in (before, after))
    if before != after:
        native().order(device, before, after)
