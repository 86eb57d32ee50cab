"""Converts the argument of ``predict`` to arrays of samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.loader import Loader, is_batches, load_npy
from gradring.sources import Source, is_map_style, require_no_paths

__all__ = ["joined_rows", "numbered", "prediction_inputs"]


def prediction_inputs(caller: str, x: Any, batch_size: int, names: Sequence[str]) -> Iterator[Any] | None:
    """The samples part by part; None if ``x`` is the model's input itself.

    ``names`` are those of the model's inputs: a part is an array, or a tuple of as many arrays as there are inputs.
    """
    if type(x) is np.ndarray and x.dtype.names is None:  # what a server gives, one row at a time
        return None
    if isinstance(x, Loader):
        return _loaded(x, batch_size, names)
    if isinstance(x, Source) or (is_map_style(x) and not isinstance(x, Iterable)):
        return _loaded(Loader(x, batch_size), batch_size, names)
    if isinstance(x, (str, os.PathLike)):
        return iter([load_npy(caller, x)])
    if isinstance(x, np.ndarray) and x.dtype.names is not None:  # records, whose fields have names
        x = {name: x[name] for name in x.dtype.names}
    if isinstance(x, Mapping):
        return iter([_named(caller, x, names)])
    if is_batches(x):
        return (_input(caller, batch, names) for batch in x)
    if isinstance(x, list):
        require_no_paths(caller, x)
    looks = ("shape", "__array__", "__array_interface__", "__dlpack__", "to_numpy")
    if (
        isinstance(x, (list, tuple, range, bytes, set, frozenset))
        or not isinstance(x, Iterable)
        or any(hasattr(x, name) for name in looks)
    ):
        return None
    return (_input(caller, batch, names) for batch in x)


def numbered(x: Any, parts: Iterable[Any]) -> Iterator[tuple[Any, Callable[[int], object]]]:
    """The parts of ``x``, each with what the user calls a sample by its row there."""
    if isinstance(x, (str, os.PathLike, Mapping)):  # one part, which is all of it
        yield from ((part, int) for part in parts)
        return
    first = 0
    for number, part in enumerate(parts):
        if isinstance(x, Loader):
            yield part, _in_loader(x, first)
            first += len(part[0] if isinstance(part, tuple) else part)
        else:
            yield part, _in_batch(number)


def _in_loader(loader: Loader, first: int) -> Callable[[int], object]:
    return lambda row: loader.called(loader.rank + (first + row) * loader.world_size)


def _in_batch(number: int) -> Callable[[int], object]:
    return lambda row: f"{row} of batch {number}"


def _loaded(loader: Loader, batch_size: int, names: Sequence[str]) -> Iterator[Any]:
    if len(names) == 1:
        if loader.names is not None and names[0] not in loader.names:
            raise ValueError(
                f"[Trainer.predict] the loader has the fields {', '.join(map(repr, loader.names))}: a model's input is taken "
                f"by name, and needs {names[0]!r}"
            )
        yield from loader.samples_in_order(batch_size)
        return
    for arrays in loader.fields_in_order(batch_size):
        yield _input("Trainer.predict", dict(zip(loader.names, arrays, strict=True)) if loader.names else arrays, names)


def _named(caller: str, fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    missing = [name for name in names if name not in fields]
    if missing:
        raise ValueError(f"[{caller}] a dict of fields needs {', '.join(map(repr, missing))}, got {[*fields]}")
    return fields[names[0]] if len(names) == 1 else tuple(fields[name] for name in names)


def _input(caller: str, batch: Any, names: Sequence[str]) -> Any:
    if isinstance(batch, Mapping):
        return _named(caller, batch, names)
    if not isinstance(batch, (tuple, list)):
        return batch
    return batch[0] if len(names) == 1 else tuple(batch[: len(names)])


def joined_rows(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """All rows in one array."""
    arrays = list(parts)
    if not arrays:
        raise ValueError("[Trainer.predict] x has no batches")
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
