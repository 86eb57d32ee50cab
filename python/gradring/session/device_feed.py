"""Feeds of arrays that lie in the memory of a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradring.cuda import streams
from gradring.ops.cast import cast

__all__ = ["array_feed"]


def array_feed(parts: Sequence[tuple[Any, str]], batch_size: int, model_on: str) -> Any:
    """A native feed of whole arrays, in their order, each cast to a dtype. ``ValueError`` unless they lie where the model
    does."""
    place = parts[0][0].device
    if place != model_on:
        raise ValueError(
            f"[Trainer] the batch is on {place}, the model is on {model_on}: must be in one place; make the trainer with "
            f"device={place!r}, or copy the batch"
        )
    arrays: list[Any] = [array if array.dtype.name == dtype else cast(array, dtype) for array, dtype in parts]
    fields = [(array.address, array.nbytes // len(array)) for array in arrays]
    feed = streams.native().DeviceFields(fields, len(arrays[0]), batch_size)
    feed.arrays = arrays  # it keeps them alive
    return feed
