"""Makes batches from the data that a trainer is given, and fields from a batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradring.loader import Loader, Stream, as_source
from gradring.session.batch import WEIGHT

__all__ = ["Mean", "batches_of", "fields_in", "given_fields", "length_of", "named_source", "order_of", "require_batches"]


class Mean:
    """A weighted mean; NaN if there is nothing to average."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add_sum(self, total: float, weight: float) -> None:
        self._sum += total
        self._weight += weight

    @property
    def value(self) -> float:
        return self._sum / self._weight if self._weight else float("nan")


def named_source(caller: str, data: Any, names: Sequence[str], batch_size: int, *, shuffle: bool, seed: int) -> Any:
    """The source of batches for a model with inputs of these names. Fields that have names are bound by them."""
    if isinstance(data, np.ndarray) and data.dtype.names is not None:  # records, whose fields have names
        data = {name: data[name] for name in data.dtype.names}
    if isinstance(data, Mapping):
        require_names(caller, "data", [*data], names)
        data = tuple(data[name] for name in (*names, WEIGHT) if name in data)
    if isinstance(data, tuple) and len(data) == len(names) + 1 and data[-1] is None:
        data = data[:-1]
    if isinstance(data, tuple) and len(data) == len(names) + 1 and all(hasattr(part, "shape") for part in data):
        samples, weights = data[0].shape[:1], data[-1].shape[:1]
        if samples != weights and samples and weights:
            raise ValueError(f"[Trainer] {names[0]} has {samples[0]} samples, {WEIGHT} has {weights[0]}: must be equal")
    every = (*names, WEIGHT)
    fits = isinstance(data, (tuple, list)) and len(data) in (len(names), len(every))
    source = as_source(caller, data, batch_size, shuffle=shuffle, seed=seed, names=every if fits else ())
    if isinstance(source, Loader) and source.names is not None:
        require_names(caller, "the loader", source.names, names)
    return source


def batches_of(
    source: Any, epoch: int | None = None, start: int = 0, limit: int | None = None, **order: bool
) -> Iterator[Any]:
    """The batches of an epoch (None: the current one) from number ``start`` on, up to number ``limit`` or the source's
    length; if the source cannot begin there, the first batches are skipped. A stream goes on where it is. ``order`` has the
    arguments of ``Loader.batches``, which other sources do not know."""
    if epoch is not None and hasattr(source, "set_epoch"):
        source.set_epoch(epoch)
    if isinstance(source, Loader):
        return itertools.islice(source.batches(start, **order), None if limit is None else max(limit - start, 0))
    if isinstance(source, Stream):  # its batches before `start` were read already
        return itertools.islice(iter(source), None if limit is None else max(limit - start, 0))
    ends = [end for end in (length_of(source), limit) if end is not None]
    # islice reads no batch after the last one, so a source without an end works.
    return itertools.islice(iter(source), start, max(min(ends), start) if ends else None)


def require_batches(method: str, count: int) -> None:
    """``ValueError`` if a source gave no batch: it is empty, or an iterator that has been read already."""
    if not count:
        raise ValueError(
            f"[Trainer.{method}] the data gave no batch: they are empty, or can be read only once and were read before; give "
            "an object that makes a new iterator for each epoch"
        )


def order_of(source: Loader) -> dict[str, Any]:
    """The order of a loader's samples in an epoch, as a native feed takes it."""
    return {name: getattr(source, name) for name in ("shuffle", "seed", "drop_last", "rank", "world_size", "pad")}


def length_of(source: Any) -> int | None:
    """The number of batches of an epoch, if the source knows it."""
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        return None


def fields_in(batch: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """The fields of a batch in the order of ``names``, and then its weights if it has any: by name from a dict, else by
    position."""
    if isinstance(batch, Mapping):
        require_names("Trainer", "a batch", [*batch], names)
        return tuple(batch[name] for name in (*names, WEIGHT) if name in batch)
    if isinstance(batch, (tuple, list)) and len(batch) in (len(names), len(names) + 1):
        return tuple(batch)
    got = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__
    raise TypeError(f"[Trainer] a batch must be ({', '.join(names)}) or a dict of {_listed(names)}, got {got}")


def require_names(caller: str, what: str, found: Sequence[Any], names: Sequence[str]) -> None:
    """``ValueError`` unless these are the names of what a model is trained on; weights may be among them."""
    if set(found) - {WEIGHT} != set(names):
        raise ValueError(
            f"[{caller}] {what} has the fields {', '.join(map(repr, found))}: training takes them by name, and needs "
            f"{_listed(names)} alone, and weights of the samples as {WEIGHT!r}"
        )


def _listed(names: Sequence[str]) -> str:
    *rest, last = map(repr, names)
    return f"{', '.join(rest)} and {last}"


def step(x: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None) -> dict[str, ArrayLike]:
    """Its signature names the arguments of ``Session.step``, so that Python's own errors for wrong arguments fit."""
    return {"x": x, "y": y} if weight is None else {"x": x, "y": y, WEIGHT: weight}


def given_fields(names: tuple[str, ...], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The fields of these names that ``step`` was given, by position, by name or in a dict."""
    if len(given) == 1 and not named and isinstance(given[0], Mapping):
        return given_fields(names, (), dict(given[0]))
    batch = given[0] if len(given) == 1 and not named else None
    if isinstance(batch, np.ndarray) and batch.dtype.names is not None:  # records, whose fields have names
        return given_fields(names, (), {name: batch[name] for name in batch.dtype.names})
    if isinstance(batch, (tuple, list)) and batch and all(hasattr(part, "shape") for part in batch):
        fields = ", ".join(names)
        raise TypeError(f"[Trainer.step] the fields of a batch come one by one: step({fields}), or step(*batch)")
    if names == ("x", "y"):
        return step(*given, **named)
    every = (*names, WEIGHT)
    taken = every[: len(given)]
    missing = [name for name in names[len(given) :] if name not in named]
    unknown = [name for name in named if name not in every or name in taken]
    if len(given) > len(every) or missing or unknown:
        got = f"{len(given)} by position" + (f" and {', '.join(map(repr, named))}" if named else "")
        raise TypeError(f"step() takes ({', '.join(names)}), got {got}")
    return {**dict(zip(taken, given, strict=True)), **named}
