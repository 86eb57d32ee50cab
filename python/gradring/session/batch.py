"""The data of a session: named fields, as arrays in memory or from a loader, checked before anything runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.arrays import NATIVE_DTYPES, as_numbers
from gradring.cuda import Array as DeviceArray
from gradring.cuda import as_array, copied, is_device_array
from gradring.losses import Loss

__all__ = ["WEIGHT", "Bound", "Fields", "Look", "bind", "check_target", "rows_contiguous"]

Array = NDArray[Any]

WEIGHT = "weight"
"""The field of a batch that has its samples' weights. It may follow the targets, or be absent."""


_LEAST_WEIGHT = 1e-30  # of the largest weight: single precision cannot divide by much smaller sums


@dataclass(frozen=True)
class Look:
    """The shape, with the axis of the samples, and the dtype of a field whose batches a loader has yet to fill."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def reshape(self, size: int) -> Look:
        """The shape as one axis; ``size`` is -1 as for an array."""
        return Look((self.size,), self.dtype)


class Fields(Protocol):
    """The interface of a loader that a session uses: the shapes and dtypes of its fields, and a native feed of its batches."""

    @property
    def looks(self) -> Sequence[tuple[tuple[int, ...], np.dtype[Any]]]:
        """The shape, with the axis of the samples, and the dtype of each field."""
        ...

    def open(self, dtypes: Sequence[str]) -> Any:
        """A ``_core.Feed`` whose fields have these dtypes."""
        ...

    def called(self, sample: int) -> object:
        """What the user calls a sample: its number in the source."""
        ...

    def read_again(self, position: int, rows: int) -> tuple[Array, Sequence[Array] | None]:
        """The numbers of a batch's samples, and their fields; None where they cannot be read a second time."""
        ...


@dataclass(frozen=True)
class Bound:
    """Fields in the order of a session's names, the targets last: arrays, or a ``Look`` each if ``feed`` has them.

    ``slots`` are their numbers in a batch of the feed. ``target`` is the shape of a sample's target as it was given, which
    metrics get. ``weight`` are the samples' weights, if there are any, and ``weight_slot`` is their number. ``copied`` says
    whether an array here is a copy of the given one.
    """

    fields: tuple[Any, ...]
    slots: tuple[int, ...]
    target: tuple[int, ...]
    feed: Fields | None = None
    copied: bool = False
    weight: Any = None
    weight_slot: int | None = None
    # Feeds of these arrays that nothing reads now, by what they were made with. For a small data set, making one takes as
    # long as a step.
    spare: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.fields[0])

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays, if the fields lie in memory; else none."""
        return () if self.feed is not None else self.fields

    @cached_property
    def signature(self) -> tuple[Any, ...]:
        """The shapes and dtypes on which programs depend, beside the number of rows and whether there are weights."""
        return tuple((f.shape[1:], f.dtype.kind in "iu", slot) for f, slot in zip(self.fields, self.slots, strict=True))


_FLOAT32 = np.dtype("float32")


def rows_contiguous(x: ArrayLike, what: str, dtype: str) -> Array:
    """``x`` as an array whose rows are contiguous and whose dtype the native gather reads; a copy only where needed."""
    if type(x) is np.ndarray and x.dtype is _FLOAT32 and x.ndim > 1 and x.flags.c_contiguous:
        return x
    if type(x) is not np.ndarray and is_device_array(x):
        rows: Array = device_rows(x, what)
        return rows
    array = np.asarray(as_numbers("Trainer", what, x))
    if array.ndim == 0:
        raise ValueError(
            f"[Trainer] {what} must have a batch axis, got a scalar: one sample is a batch of one, x[None], and a list of "
            "samples is a data set, gr.sources.Callable(samples.__getitem__, len(samples))"
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.name not in NATIVE_DTYPES:
        array = array.astype(dtype)
    if array.size and array.ndim > 1 and not array[0].flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if array.ndim == 1 and array.size > 1 and array.strides[0] == 0:
        array = np.ascontiguousarray(array)
    return array


def device_rows(x: Any, what: str) -> Any:
    """An array on a CUDA device without gaps, over the same memory where it has none."""
    array = as_array(x, f"Trainer: {what}")
    if array.ndim == 0:
        raise ValueError(f"[Trainer] {what} must have a batch axis, got a scalar")
    return array if array.contiguous else copied(array)


def require_one_place(names: Sequence[str], fields: Sequence[Any]) -> None:
    """``ValueError`` if some fields are on a device and others are not, or on another one."""
    places = [field.device if isinstance(field, DeviceArray) else "the host" for field in fields]
    for name, place in zip(names, places, strict=False):
        if place != places[0]:
            raise ValueError(
                f"[Trainer] {names[0]} is on {places[0]}, {name} is on {place}: all fields of a batch must be in one place; "
                "copy one of them"
            )


def bind(
    given: Any,
    names: Sequence[str],
    loss: Loss,
    dtype: str,
    *,
    slots: Sequence[int],
    order: Sequence[str] | None = None,
    weightless: bool = False,
) -> Bound:
    """The fields ``names``, the last of which are the targets, of equally many samples, and their weights, if there are any.

    ``given`` is a mapping of arrays by name, arrays in the order of the names, or a loader's ``Fields``, which are in this
    ``order`` if they have names. The order of arrays does not matter: they get the ``slots`` that a loader used before.
    With ``weightless`` all weights may be zero, which is allowed in one batch of many.
    """
    looks = getattr(given, "looks", None)
    feed: Fields | None = None if looks is None else given
    count = len(names)
    if isinstance(given, Mapping):
        given = tuple(given[name] for name in (*names, WEIGHT) if name in given)
    if looks is not None:
        places = [*names, WEIGHT][: len(looks)]
        every = tuple(range(len(looks))) if order is None else tuple(map(list(order).index, places))
        given = tuple(Look(*looks[slot]) for slot in every) if len(looks) in (count, count + 1) else ()
        slots = every[:count]
    if not isinstance(given, (tuple, list)) or len(given) not in (count, count + 1):
        raise TypeError(f"[Trainer] a batch must have the fields {_listed(names)}, and may have {WEIGHT} behind them")
    weight, weight_slot = None, None
    if len(given) > count and given[count] is not None:
        weight_slot = count if looks is None else every[count]
        weight = given[count] if looks is not None else rows_contiguous(given[count], WEIGHT, dtype)
    if looks is None and (weight is not None or sorted(slots) != list(range(count))):
        slots = range(count)  # arrays fill a batch without a gap
    given = given[:count]
    fields = list(given)
    if looks is None:
        fields = [rows_contiguous(array, name, dtype) for name, array in zip(names, given, strict=True)]
        require_one_place([*names, WEIGHT], [*fields, *(() if weight is None else (weight,))])
    is_copied = looks is None and any(a is not b for a, b in zip(fields, given, strict=True))
    first = fields[0]
    for name, field in zip(names, fields, strict=True):
        if len(field) != len(first):
            raise ValueError(f"[Trainer] {names[0]} has {len(first)} samples, {name} has {len(field)}: must be equal")
    for name, field in zip(names[:-1], fields, strict=False):
        if len(field) == 0:
            raise ValueError(f"[Trainer] {name} is {field.shape}: must have at least one sample")
        if field.size == 0:
            raise ValueError(f"[Trainer] {name} is {field.shape}: a sample must have at least one element")
    target = fields[-1].shape[1:]
    fields[-1] = loss.targets(fields[-1])
    if weight is not None:
        weight = _checked_weight(weight, len(first), names[0], weightless)
    return Bound(tuple(fields), tuple(slots), target, feed, is_copied, weight, weight_slot)


def _checked_weight(weight: Any, samples: int, first: str, weightless: bool) -> Any:
    """Weights as a vector, of which at least one is above zero unless ``weightless``."""
    if weight.ndim == 2 and weight.shape[1] == 1:
        weight = weight.reshape(-1)
    if weight.ndim != 1:
        raise ValueError(f"[Trainer] {WEIGHT} is {weight.shape}: must be (samples,), one number for each sample")
    if weight.dtype.kind not in "fiub":
        raise TypeError(f"[Trainer] {WEIGHT} must be numbers, got dtype {weight.dtype}")
    if len(weight) != samples:
        raise ValueError(f"[Trainer] {first} has {samples} samples, {WEIGHT} has {len(weight)}: must be equal")
    if isinstance(weight, (Look, DeviceArray)):  # the step checks the numbers
        return weight
    if not (weight.min() >= 0 and weight.max() < math.inf):  # NaN fails both
        sample = int(np.flatnonzero(~((weight >= 0) & (weight < math.inf)))[0])
        raise ValueError(
            f"[Trainer] {WEIGHT} of sample {sample} is {weight[sample]}: must be finite and at least 0; leave samples out, or "
            "weigh them 0, that should not count"
        )
    if 0 < weight.max() < _LEAST_WEIGHT:
        raise ValueError(
            f"[Trainer] {WEIGHT}: all {samples} weights are below {_LEAST_WEIGHT:g}, and a mean over them cannot be computed: "
            "multiply all by one number, which changes no mean"
        )
    if not weightless and not weight.any():
        raise ValueError(
            f"[Trainer] {WEIGHT}: all {samples} weights are zero, so there is nothing to learn: leave {WEIGHT} out"
        )
    return weight


def _listed(names: Sequence[str]) -> str:
    return f"({', '.join(names)})"


def check_target(wanted: tuple[int, ...], y: Array | Look, loss: Loss) -> None:
    """Check that the rows of ``y`` have the target's shape."""
    if y.shape[1:] != wanted[1:]:
        raise ValueError(
            f"[{loss.kind}] y is {y.shape}, the model gives {wanted} for a batch of {wanted[0]}: "
            f"y must be (samples, {', '.join(map(str, wanted[1:]))})"
            + (", as y[:, None] is" if y.ndim == 1 and wanted[1:] == (1,) else "")
        )
