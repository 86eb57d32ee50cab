"""What the trainer needs of a loader, and data that is not one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.loader.loader import Loader

__all__ = ["as_source", "load_npy"]


def as_source(caller: str, data: Any, batch_size: int, *, shuffle: bool, seed: int) -> Any:
    """A loader or another iterable of batches as it is; a tuple, list or dict of arrays as a loader over them."""
    batches = isinstance(data, list) and data and isinstance(data[0], (tuple, list, Mapping))
    if isinstance(data, (tuple, list, Mapping)) and not batches:
        return Loader(data, batch_size, shuffle=shuffle, seed=seed)
    if isinstance(data, np.ndarray) or not isinstance(data, Iterable):
        raise TypeError(
            f"[{caller}] data must be a Loader, arrays (x, y) or an iterable of batches, got {type(data).__name__}"
        )
    if isinstance(data, Iterator):
        raise TypeError(f"[{caller}] data is an iterator, which can be read only once; give what it was made from")
    return data


def load_npy(label: str, path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map an ``.npy`` file; what is none raises ``ValueError`` with its name."""
    try:
        # Not np.load, which also opens zip files and leaves a damaged one open.
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        name = os.fspath(path)
        raise ValueError(f"[Loader] {label}: {name} is not an .npy file of numbers, or is damaged: {error}") from error
