"""Transforms that users write: compiled functions, and Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradring.arguments import flag, whole
from gradring.arrays import as_ndarray
from gradring.attributes import Settled
from gradring.early_pickle import EarlyPickle
from gradring.random_keys import generator_for
from gradring.transforms._base import dtype_name

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Native", "Python"]


class _Function(Settled):
    def __init__(self, dtype: DTypeLike | None, shape: tuple[int, ...] | int | None) -> None:
        self.dtype = None if dtype is None else dtype_name(type(self).__name__, dtype)
        extents = shape if shape is None or isinstance(shape, (tuple, list)) else [shape]
        who = type(self).__name__
        self.shape = None if extents is None else [whole(who, "shape", extent, 0) for extent in extents]


class Native(_Function):
    """A compiled function from row to row, run without the GIL on many threads at the same time.

    ``function`` has the signature of ``gradring_row_transform`` (gradring/row_transform.h), and may be given as

    - a PyCapsule with that signature as its name, or a ``scipy.LowLevelCallable`` of one: its context becomes
    user_data;
    - a Cython ``cdef api int f(...) noexcept nogil``, from its module's ``__pyx_capi__``;
    - a Numba ``cfunc``;
    - a ctypes function pointer (``ctypes.CFUNCTYPE``, or a function of a ``ctypes.CDLL`` with these argtypes).

    ``dtype`` and ``shape`` are those of its output; by default those of its input. ``user_data`` is an address, and
    ``owner`` an object to keep alive for it. A result other than 0 raises ``ValueError`` with that number and the
    sample.
    """

    python = False
    SIGNATURE = "int (const void *, int64_t, void *, int64_t, int64_t, uint64_t, void *)"
    #: The same as a ctypes prototype.
    PROTOTYPE = ctypes.CFUNCTYPE(
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_uint64,
        ctypes.c_void_p,
    )

    def __init__(
        self,
        function: Any,
        dtype: DTypeLike | None = None,
        shape: tuple[int, ...] | int | None = None,
        *,
        user_data: int = 0,
        owner: Any = None,
    ) -> None:
        super().__init__(dtype, shape)
        address, context = _address(function)
        if not address:
            raise ValueError("[Native] function is a null pointer")
        self.address, self.user_data = address, whole("Native", "user_data", user_data, 0, 2**64 - 1) or context
        self._alive = (function, owner)

    def step(self) -> tuple[Any, ...]:
        return "native", (self.address, self.user_data), self.dtype, self.shape, self._alive

    def __reduce__(self) -> Any:
        raise TypeError("[Native] an address means nothing in another process: it cannot be pickled")


class Python(_Function):
    """A Python function from row to row: ``fn(row)`` gets an array of its own and returns an array.

    ``dtype`` and ``shape`` are those of its result; by default those of its input. Another shape or dtype raises.
    With ``rng=True`` it is called ``fn(row, generator)``: a NumPy generator keyed by (seed, epoch, sample, place), so
    that the stream does not depend on the workers; it is valid until ``fn`` returns. The function needs the GIL.

    >>> import numpy as np
    >>> from gradring.sources import open_source
    >>> source = open_source(np.arange(6.0).reshape(3, 2))
    >>> source.transformed([Python(lambda row: row[::-1]), Python(np.sum, shape=())]).read([1, 2])
    array([5., 9.])
    """

    python = True

    def __init__(
        self,
        fn: Callable[..., Any],
        dtype: DTypeLike | None = None,
        shape: tuple[int, ...] | int | None = None,
        *,
        rng: bool = False,
    ) -> None:
        super().__init__(dtype, shape)
        if not callable(fn):
            raise TypeError(f"[Python] fn is a {type(fn).__name__}, not callable")
        self.fn, self.rng = fn, flag("Python", "rng", rng)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "fn": EarlyPickle(self.fn, "Python")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        fn = state["fn"]
        self.__dict__.update(state, fn=fn.load() if isinstance(fn, EarlyPickle) else fn)

    def step(self) -> tuple[Any, ...]:
        return "python", self._checked, self.dtype, self.shape

    def _checked(self, field: str, dtype: str, shape: tuple[int, ...]) -> Callable[..., NDArray[Any]]:
        wanted = np.dtype(dtype)

        def call(row: NDArray[Any], sample: int, random: int) -> NDArray[Any]:
            result: Any
            result = self.fn(row, generator_for(random, 0, 0)) if self.rng else self.fn(row)
            if type(result) is not np.ndarray:
                result = as_ndarray("Python", f"the result for field {field!r} of sample {sample}", result)
            if result.shape != shape or result.dtype != wanted:
                raise ValueError(
                    f"[Python] the transform of field {field!r} returned {result.dtype} {result.shape} for sample "
                    f"{sample}, expected {wanted} {shape}: give Python(fn, dtype=..., shape=...) what it returns"
                )
            made: NDArray[Any] = result if result.flags.c_contiguous else np.ascontiguousarray(result)
            return made

        return call


# The base of all ctypes function pointers, which has no public name.
_FUNCTION_POINTER: type[Any] = Native.PROTOTYPE.__bases__[0]


def _address(function: Any) -> tuple[int, int]:
    """The pair (address, user_data) of anything that Native accepts."""
    if isinstance(function, tuple) and type(function).__name__ == "LowLevelCallable":
        function = function[0]
    if type(function).__name__ == "PyCapsule":
        return _of_capsule(function)
    if isinstance(function, _FUNCTION_POINTER):
        declared = getattr(function, "argtypes", None)
        if declared is not None and list(declared) != list(Native.PROTOTYPE._argtypes_):
            raise TypeError(f"[Native] the ctypes function takes {declared}; use Native.PROTOTYPE")
        return ctypes.cast(function, ctypes.c_void_p).value or 0, 0
    address = getattr(function, "address", None)
    if isinstance(address, int) and hasattr(function, "native_name"):  # Numba's cfunc
        arguments = getattr(getattr(function, "_sig", None), "args", None)
        if arguments is not None and len(arguments) != 7:
            raise TypeError(f"[Native] the cfunc takes {len(arguments)} arguments: expected {Native.SIGNATURE}")
        return address, 0
    raise TypeError(
        f"[Native] function is a {type(function).__name__}: expected a PyCapsule, scipy.LowLevelCallable, "
        "Numba cfunc or ctypes function pointer"
    )


def _of_capsule(capsule: Any) -> tuple[int, int]:
    api = ctypes.pythonapi
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", api))
    context_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(("PyCapsule_GetContext", api))
    name = name_of(capsule)
    spelled = "" if name is None else name.decode()
    if _normal(spelled) != _normal(Native.SIGNATURE):
        raise TypeError(f"[Native] the capsule holds {spelled!r}: expected {Native.SIGNATURE!r}")
    return pointer_of(capsule, name) or 0, context_of(capsule) or 0


def _normal(signature: str) -> str:
    """A signature without spaces, in which Cython's spelling of types is replaced by C's."""
    plain = signature.replace("void const *", "const void *").replace("noexcept", "").replace("nogil", "")
    return "".join(plain.split())
