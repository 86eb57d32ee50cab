"""A source whose samples a Python function makes."""

from __future__ import annotations

from collections.abc import Callable as _Function
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradring import _core
from gradring.arguments import choice, flag, whole
from gradring.arrays import as_ndarray, is_array_like
from gradring.early_pickle import EarlyPickle
from gradring.random_keys import generator_for, reseeded
from gradring.sources._base import Source
from gradring.sources._fields import Field, named_first
from gradring.sources._opened import KINDS, Opened

__all__ = ["Callable"]


class Callable(Source):
    """Samples that ``fn(i)`` makes, for i in range(length): an array, or a tuple, list or dict of arrays.

    It runs in the loader's threads (under the GIL, so this pays only if ``fn`` releases it), or in
    ``num_workers`` worker processes, which write samples straight into the batch: ``fn`` must then be picklable.
    The loader finds out how many of them to use, unless its ``num_threads`` gives their number. ``fn(0)`` is
    called once to learn the fields; every other sample must have the same dtypes and shapes. The consumer gets
    the exceptions of ``fn``.

    Random numbers repeat if ``fn`` draws them from a generator of the sample: with ``rng=True`` the call is ``fn(i,
    generator)``, a NumPy generator keyed by the loader's (seed, epoch) and ``i``, on any worker, which costs about 3 us
    per sample; the generator is valid until ``fn`` returns. A function that draws from ``np.random`` or ``random``
    themselves repeats with ``reseed=True``, which seeds both before each sample, about 25 us. That is for worker
    processes only, because the threads of a process share those two.

    >>> import numpy as np
    >>> from gradring.sources import open_source
    >>> squares = Callable(lambda i: (np.full(2, i, np.float32), i * i), length=100)
    >>> open_source(squares).read([3, 9])
    (array([[3., 3.],
           [9., 9.]], dtype=float32), array([ 9, 81]))
    """

    def __init__(
        self,
        fn: _Function[..., Any],
        length: int,
        *,
        workers: Literal["threads", "processes"] = "threads",
        num_workers: int = 2,
        rng: bool = False,
        reseed: bool = False,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"[Callable] fn is a {type(fn).__name__}, not callable")
        self.fn, self.length = fn, whole("Callable", "length", length, 1, 2**63 - 1)
        self.rng, self.reseed = flag("Callable", "rng", rng), flag("Callable", "reseed", reseed)
        self.workers: str = choice("Callable", "workers", workers, ("threads", "processes"))
        self.num_workers = whole("Callable", "num_workers", num_workers, 1)
        if self.reseed and workers != "processes":
            raise ValueError(
                "[Callable] reseed=True needs workers='processes', because the threads of a process share np.random and "
                "random; with rng=True the function gets a generator of its own"
            )
        self._early: EarlyPickle | None = None
        self._learned: tuple[str, tuple[Field, ...]] | None = None  # is sent to worker processes

    def function(self) -> Callable:
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_early": None}
        if self._early is not None:
            state["fn"] = self._early
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        fn = state["fn"]
        self.__dict__.update(state, fn=fn.load() if isinstance(fn, EarlyPickle) else fn)

    def opened(self) -> Opened:
        if self._learned is None and self.workers == "processes" and self._early is None:
            # Pickle the function before its first sample: that may open files, which cannot be sent to a process.
            self._early = EarlyPickle(self.fn, "Callable")
        if self._learned is None:
            kind, parts = _parts(self.fn(0, generator_for(0, 0, 0)) if self.rng else self.fn(0))
            fields = tuple(Field(name, part.dtype, part.shape).delivered for name, part in parts.items())
            if not fields:
                raise ValueError("[Callable] fn(0) returned no array")
            self._learned = kind, fields
        kind, fields = self._learned
        keyed = self.rng or self.reseed
        checked = _Checked(_Keyed(self.fn, self.rng, self.reseed) if keyed else self.fn, kind, fields)
        looks = [(field.name, field.dtype, field.shape) for field in fields]
        natives = [field.native for field in fields]
        native = _core.call_source(checked, self.length, natives, KINDS.index(kind), looks, keyed)
        return Opened(native, fields, kind, self.workers, self.num_workers, python=True, keeps=(checked,))


def _parts(value: Any) -> tuple[str, dict[str, NDArray[Any]]]:
    if isinstance(value, Mapping):
        return "dict", named_first({str(name): _array(str(name), part) for name, part in value.items()})
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return kind, {str(i): _array(str(i), part) for i, part in enumerate(value)}
    return "array", {"0": _array("0", value)}


def _array(name: str, part: Any) -> NDArray[Any]:
    if type(part) is np.ndarray or isinstance(part, (np.generic, int, float)):
        return np.asarray(part)
    inner: Any = part
    while isinstance(inner, (list, tuple)) and inner:
        inner = inner[0]
    if isinstance(part, Mapping) or (
        isinstance(part, (list, tuple)) and not isinstance(inner, (int, float, np.generic))
    ):
        raise TypeError(
            f"[Callable] field {name!r} of a sample is a {type(part).__name__} of its own: give all arrays side by side, "
            "as in (image, mask, label), or in one dict"
        )
    return np.asarray(as_ndarray("Callable", f"field {name!r}", part if is_array_like(part) else np.asarray(part)))


class _Keyed:
    """The user's function, called with random numbers of its sample."""

    def __init__(self, fn: _Function[..., Any], rng: bool, reseed: bool) -> None:
        self.fn, self.rng, self.reseed = fn, rng, reseed

    def __call__(self, number: int, seed: int, epoch: int) -> Any:
        more = (generator_for(seed, epoch, number),) if self.rng else ()
        if not self.reseed:
            return self.fn(number, *more)
        with reseeded(seed, epoch, number):
            return self.fn(number, *more)


class _Checked:
    """The user's function, and the check of samples that, for native code, seem to differ from the first one."""

    def __init__(self, fn: _Function[..., Any], kind: str, fields: tuple[Field, ...]) -> None:
        self.fn, self.kind, self.fields = fn, kind, fields

    def __call__(self, number: int, sample: Any) -> tuple[NDArray[Any], ...]:
        kind, parts = _parts(sample)
        names = [field.name for field in self.fields]
        if kind == self.kind == "dict" and parts.keys() == set(names):
            parts = {name: parts[name] for name in names}  # the sample's fields may be in any order
        if kind != self.kind or list(parts) != names:
            raise ValueError(f"[Callable] fn({number}) returned {kind} of {list(parts)}, fn(0) {self.kind} of {names}")
        native = [part.astype(part.dtype.newbyteorder("="), copy=False) for part in parts.values()]
        for field, part in zip(self.fields, native, strict=True):
            if part.dtype != field.dtype or part.shape != field.shape:
                raise ValueError(
                    f"[Callable] fn({number}) returned {part.dtype} {part.shape} for field {field.name!r}, "
                    f"fn(0) {field.dtype} {field.shape}: all samples must have the same dtype and shape"
                )
        return tuple(np.ascontiguousarray(part).reshape(part.shape) for part in native)
