"""What ``predict`` is given, as arrays of samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.loader import Loader, load_npy

__all__ = ["joined_rows", "prediction_inputs"]


def prediction_inputs(caller: str, x: Any, batch_size: int) -> Iterator[Any] | None:
    """The samples part by part, for what is no array by itself; None for what is one."""
    if isinstance(x, Loader):
        return x.samples_in_order(batch_size)
    if isinstance(x, (str, os.PathLike)):
        return iter([load_npy(caller, x)])
    if isinstance(x, Mapping):
        if "x" not in x:
            raise ValueError(f"[{caller}] a dict of fields needs 'x', got {[*x]}")
        return iter([x["x"]])
    looks = ("shape", "__array__", "__array_interface__", "__dlpack__", "to_numpy")
    if (
        isinstance(x, (list, tuple, range, bytes, set, frozenset))
        or not isinstance(x, Iterable)
        or any(hasattr(x, name) for name in looks)
    ):
        return None
    return (_input(batch) for batch in x)


def _input(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return batch["x"]
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def joined_rows(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """All rows in one array."""
    arrays = list(parts)
    if not arrays:
        raise ValueError("[Trainer.predict] x has no batches")
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
