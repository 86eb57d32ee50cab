"""A rank's communicator: memory that all ranks reach, and operations that all ranks call together."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gradring import activity
from gradring.arguments import real, whole
from gradring.comm._stack import tell_stacks
from gradring.comm.work import Work
from gradring.errors import NotBuilt

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from gradring import _core

__all__ = ["Communicator"]

# gradring::Collective
_ALL_REDUCE, _REDUCE_SCATTER, _ALL_GATHER, _BROADCAST, _BARRIER, _SEND, _RECEIVE = range(1, 8)
_ACTIVITIES = ("", "waiting for data", "saving", "in a callback", "computing")
Op = Literal["sum", "mean", "max", "min", "prod"]
Array = NDArray[Any]


class Communicator:
    """One rank of a group of ranks on this host. Get it from ``init``, ``thread_group`` or ``split``.

    All ranks call the same operations in the same order. Arrays are NumPy arrays of float32, float64, float16, bfloat16
    (of ml_dtypes), bool and the integers, of any shape and strides; those of ``empty`` are not copied. With
    ``async_op=True`` an operation returns a ``Work`` immediately and runs by itself. After ``PeerDied``, ``PeerStalled``
    or ``CollectiveMismatch`` the communicator refuses further use.

    ``rank`` is this rank's number and ``size`` the number of ranks; ``local_rank`` and ``local_size`` are the same among
    the ranks of this host; ``generation`` counts how often the launcher has restarted the ranks.
    """

    def __init__(
        self,
        group: _core.Group,
        *,
        local_rank: int | None = None,
        local_size: int | None = None,
        generation: int = 0,
        signal_of: Callable[[int], int | None] | None = None,
        tells: bool = False,
    ) -> None:
        """``signal_of`` gives the signal that ended a rank of the world. With ``tells``, the other ranks learn what this
        process does, and get its Python stack when they ask; groups that are split off tell them as well."""
        self._group = group
        self._call: Callable[..., Any] = group.caller()
        self.rank = group.rank
        self.size = group.size
        self.local_rank = self.rank if local_rank is None else local_rank
        self.local_size = self.size if local_size is None else local_size
        self.generation = generation
        self._signal_of = signal_of
        self._tells = tells
        if signal_of is not None:
            origins = group.origins
            group.signal_of = lambda rank: signal_of(origins[rank])
        self._teller: threading.Thread | None = None
        if tells and self.size > 1:
            activity.listen(self)
            self._teller = tell_stacks(group)

    def __repr__(self) -> str:
        state = ", closed" if self._group.closed else ""
        return f"<gradring.comm.Communicator rank {self.rank} of {self.size}{state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(timeout=None if kind is None else 0.0)

    def close(self, timeout: float | None = None) -> None:
        """Wait for the operations with ``async_op`` that are under way, then leave the group. Arrays of ``empty`` stay valid.
        Closing twice is allowed.

        After ``timeout`` seconds, or Ctrl-C, operations that still wait for other ranks are given up: they fail here, and
        raise ``PeerDied`` on the other ranks. So are, at once, operations in which other threads of this rank wait. A ``with``
        block that ends by an exception does not wait, and a communicator that is dropped waits at most ten seconds.
        """
        seconds = 1e9 if timeout is None else real("comm.close", "timeout", timeout, least=0, also="None")
        self._group.close(seconds)
        # The thread that shows this rank's stack ends now. It holds the memory of the words that it waits for.
        if self._teller is not None and self._teller is not threading.current_thread():
            self._teller.join(1.0)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = "float32") -> Array:
        """An uninitialized array in memory that all ranks reach, so that operations on it and on its contiguous views copy
        nothing.

        No other rank takes part, so ranks may make arrays in any order. The memory is allocated when this returns; if
        there is not enough, it raises MemoryError.
        """
        dtype = _dtype(dtype)
        shape = _shape(shape)
        count = prod(shape)
        if count == 0 or dtype.itemsize == 0:
            return np.empty(shape, dtype)
        size = count * dtype.itemsize
        if size >= 2**63:
            raise MemoryError(
                f"[comm.empty] shape is {shape}, of {dtype}: {size} bytes are more than a process can have"
            )
        block = self._group.allocate(size)
        flat = np.frombuffer(memoryview(block), np.uint8, size)
        array: Array = flat.view(dtype).reshape(shape)
        return array

    def all_reduce(
        self,
        x: Array,
        op: Op = "sum",
        out: Array | None = None,
        weight: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Reduce ``x`` over all ranks, element by element, into ``x`` or ``out`` of every rank; returns that array.

        ``op``: 'sum', 'mean', 'max', 'min' or 'prod'. Floats add up in float32 or wider, in rank order, so that all ranks get
        the same bits; integers wrap; NaN propagates. 'mean' divides the sum once, by the number of ranks. If every rank gives
        a ``weight``, it divides by their sum instead, and ``x`` must be each rank's weighted sum; if the weights add up to 0,
        it raises ValueError and changes nothing.
        """
        target = x if out is None else out
        work = self._call(_ALL_REDUCE, x, out, op, weight, async_op)
        return target if work is None else Work(work, self)

    def reduce_scatter(self, x: Array, op: Op = "sum", out: Array | None = None, async_op: bool = False) -> Any:
        """Reduce ``x``, of shape (size * n, ...), over all ranks; returns block ``rank`` of the result, of shape (n, ...)."""
        if out is None:
            if not isinstance(x, np.ndarray):
                raise TypeError(f"[reduce_scatter] x is a {type(x).__name__}: must be a numpy.ndarray")
            shape = x.shape
            if not shape or shape[0] % self.size:
                raise ValueError(f"[reduce_scatter] x is {shape}: x.shape[0] must be a multiple of {self.size} ranks")
            out = np.empty((shape[0] // self.size, *shape[1:]), x.dtype)
        work = self._call(_REDUCE_SCATTER, x, out, op, None, async_op)
        return out if work is None else Work(work, self)

    def all_gather(self, x: ArrayLike, out: Array | None = None, async_op: bool = False) -> Any:
        """Gather the arrays ``x`` of all ranks, which have the same shape; returns an array of shape (size,
        *x.shape)."""
        x = np.asanyarray(x)
        if out is None:
            out = np.empty((self.size, *x.shape), x.dtype)
        work = self._call(_ALL_GATHER, x, out, None, None, async_op)
        return out if work is None else Work(work, self)

    def broadcast(self, x: Array, root: int = 0, async_op: bool = False) -> Any:
        """Copy ``x`` of rank ``root`` to ``x`` of every rank; returns ``x``."""
        work = self._call(_BROADCAST, x, None, None, root, async_op)
        return x if work is None else Work(work, self)

    def barrier(self) -> None:
        """Return when all ranks have called it."""
        self._call(_BARRIER, None, None, None, None, False)

    def send(self, x: Array, dst: int, async_op: bool = False) -> Any:
        """Send ``x`` to rank ``dst``, which calls ``recv`` with an array of the same dtype and number of elements.

        Up to 48 bytes are sent without waiting; larger arrays wait for the receiver. To exchange arrays, make one of
        the two calls async.
        """
        work = self._call(_SEND, x, None, None, dst, async_op)
        return x if work is None else Work(work, self)

    def recv(self, x: Array, src: int, async_op: bool = False) -> Any:
        """Receive into ``x`` what rank ``src`` sends; returns ``x``."""
        work = self._call(_RECEIVE, x, None, None, src, async_op)
        return x if work is None else Work(work, self)

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """A communicator of the ranks that give the same ``color``, ordered by ``key``, then by rank; None for None.

        All ranks call it. The groups share the memory of ``empty``. So if one of the groups of a rank fails, that rank's arrays
        of ``empty`` become private: another group that uses them in an operation at that moment fails too, and a group that is
        in no operation stays usable, and copies them from then on.
        """
        if color is not None:
            color = whole("split", "color", color, 0, 2**31 - 1, also="None")
        key = whole("split", "key", key, -(2**31), 2**31 - 1)
        group = self._group.split(-1 if color is None else color, key)
        return None if group is None else self._part(group)

    def twin(self) -> Communicator:
        """For ``gradring.Trainer``: make another communicator of the same ranks. All ranks call it."""
        return Communicator(
            self._group.split(0, 0),
            local_rank=self.local_rank,
            local_size=self.local_size,
            generation=self.generation,
            signal_of=self._signal_of,
            tells=True,
        )

    def _part(self, group: _core.Group) -> Communicator:
        return Communicator(group, generation=self.generation, signal_of=self._signal_of, tells=self._tells)

    @property
    def group(self) -> _core.Group:
        """The native group."""
        return self._group

    def group_of(self, members: list[int], tell: Callable[[int], None], hear: Callable[[], int]) -> Communicator:
        """For ``gradring.torch``: make a communicator of some ranks; the other ranks take no part.

        The first member calls ``tell`` with a number, and ``hear`` must return this number to all members. If a member has too
        little memory, all members raise an error; -1 tells that the first one has.
        """
        if self.rank == members[0]:
            try:
                words = self._group.make_words(len(members))
            except BaseException:
                tell(-1)
                raise
            tell(words)
        words = hear()
        if words < 0:
            raise MemoryError(f"[split] rank {members[0]} has no shared memory for the new group's words")
        group = self._part(self._group.join_words(members, words))
        group.barrier()  # After this, all have joined, so the first member may leave.
        return group

    @contextmanager
    def doing(self, activity: str, patience: float = 0.0) -> Iterator[None]:
        """Tell the other ranks what this one does in the block: the message of ``PeerStalled`` shows it.

        ``activity``: 'waiting for data', 'saving', 'in a callback' or 'computing'. The others wait up to ``patience``
        seconds for it, even beyond their own timeout.
        """
        if activity not in _ACTIVITIES[1:]:
            raise ValueError(f"[comm.doing] activity is {activity!r}: must be one of {', '.join(_ACTIVITIES[1:])}")
        self._group.set_activity(_ACTIVITIES.index(activity), real("comm.doing", "patience", patience, least=0))
        try:
            yield
        finally:
            self._group.set_activity(0, 0.0)

    def publish_activity(self, name: str, patience: float, passing: bool) -> None:
        """For ``gradring.activity``: publish what this process does outside of collectives."""
        if not self._group.closed:
            self._group.set_activity(_ACTIVITIES.index(name), patience, passing)

    def all_to_all(self, x: Array, out: Array | None = None) -> NoReturn:
        """Not built yet."""
        raise NotBuilt("[all_to_all] is planned; until then use send and recv with async_op=True")

    def gather(self, x: Array, root: int = 0) -> NoReturn:
        """Not built yet."""
        raise NotBuilt("[gather] is planned; until then use all_gather")

    def scatter(self, x: Array, root: int = 0) -> NoReturn:
        """Not built yet."""
        raise NotBuilt("[scatter] is planned; until then use broadcast and take a block")

    def reduce(self, x: Array, op: Op = "sum", root: int = 0) -> NoReturn:
        """Not built yet."""
        raise NotBuilt("[reduce] is planned; until then use all_reduce")


def _shape(shape: Any) -> tuple[int, ...]:
    """The extents that one int, or a sequence of ints, stands for."""
    try:
        extents = tuple(map(operator.index, shape if isinstance(shape, (Sequence, np.ndarray)) else [shape]))
    except TypeError:
        raise TypeError(f"[comm.empty] shape is {shape!r}: must be an int or a tuple of ints") from None
    if any(extent < 0 for extent in extents):
        raise ValueError(f"[comm.empty] shape is {extents}: must have no negative extents")
    return extents


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            raise TypeError("[comm.empty] dtype is bfloat16: NumPy has it with the package ml_dtypes") from None
        result: np.dtype[Any] = np.dtype(bfloat16)
        return result
    try:
        result = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"[comm.empty] dtype is {dtype!r}: {error}") from None
    if result.hasobject:
        raise TypeError(f"[comm.empty] dtype is {result}: other ranks cannot use Python objects")
    return result
