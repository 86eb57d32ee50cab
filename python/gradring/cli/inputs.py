"""The inputs of a network: samples, scaled as its file says, in memory or, if there are many, on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import _core

__all__ = ["IN_MEMORY", "MappedBatches", "Scaling", "require_other"]

Array = NDArray[Any]
IN_MEMORY = 256 << 20  # bytes of scaled samples; more stay on the disk
_CHUNK = 1 << 22  # elements that are read at a time


def require_other(command: str, written: Iterable[Path], read: Iterable[Path | None]) -> None:
    """Raise ``ValueError`` if a file that will be written is also one that is read."""
    inputs = [path for path in read if path is not None and path.exists()]
    for path in written:
        if path.exists() and any(path.samefile(other) for other in inputs):
            raise ValueError(f"[{command}] {path} is an input: it would be replaced; name another place with --out")


def chunks(x: Array) -> Iterator[tuple[int, Array]]:
    """Yield the rows in pieces, each with the number of its first row."""
    rows = max(_CHUNK // max(x[0].size, 1), 1)
    for first in range(0, len(x), rows):
        yield first, x[first : first + rows]


@dataclass(frozen=True)
class Scaling:
    """How a sample becomes what the network reads: ``(x - mean) / deviation``, feature by feature. Bytes, which images
    have, become numbers from 0 to 1 instead."""

    shape: tuple[int, ...]  # the shape of a sample
    is_bytes: bool
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, command: str, name: str, x: Array, rows: Array | None, standard: bool) -> Scaling:
        """Compute the scaling from those samples ``x`` whose numbers are ``rows``. ``ValueError`` if a value is not finite."""
        shape, width = x.shape[1:], x[0].size
        if x.dtype.kind not in "fiub":
            raise TypeError(f"[{command}] {name} must hold numbers, got dtype {x.dtype}")
        none, one = np.zeros(width), np.ones(width)
        if x.dtype == np.uint8:
            return cls(shape, True, none, np.full(width, 255.0))
        chosen = np.ones(len(x), bool) if rows is None else np.isin(np.arange(len(x)), rows)
        count, mean, spread = 0, none.copy(), none.copy()
        for first, part in chunks(x):
            flat = part.reshape(len(part), -1).astype(np.float64)
            if not np.isfinite(flat).all():
                row, column = np.argwhere(~np.isfinite(flat))[0]
                raise ValueError(
                    f"[{command}] {name}: element {column} of sample {first + row} is {flat[row, column]}: every value "
                    "must be finite"
                )
            flat = flat[chosen[first : first + len(part)]]
            if not standard or not len(flat):
                continue
            # The parts' sums are merged as in Chan, Golub and LeVeque, "Algorithms for computing the sample variance",
            # 1983.
            here, inside = flat.mean(axis=0), ((flat - flat.mean(axis=0)) ** 2).sum(axis=0)
            total = count + len(flat)
            spread += inside + (here - mean) ** 2 * (count * len(flat) / total)
            mean += (here - mean) * (len(flat) / total)
            count = total
        if not standard:
            return cls(shape, False, none, one)
        deviation = np.sqrt(spread / max(count, 1))
        if not np.isfinite(deviation).all():
            raise ValueError(f"[{command}] {name} has values too large to be scaled: divide them first")
        deviation[deviation == 0] = 1.0
        return cls(shape, False, mean, deviation)

    def require(self, command: str, name: str, x: Array) -> None:
        """Raise ``ValueError`` if the samples' shape differs from what the network was trained on."""
        if x.shape[1:] != self.shape:
            raise ValueError(f"[{command}] {name} is {x.shape}: the model was trained on samples of shape {self.shape}")
        if x.dtype.kind not in "fiub":
            raise TypeError(f"[{command}] {name} must hold numbers, got dtype {x.dtype}")
        if (x.dtype == np.uint8) != self.is_bytes:
            wanted = "bytes (uint8) of 0 to 255" if self.is_bytes else "numbers of another dtype than bytes (uint8)"
            raise ValueError(f"[{command}] {name} is of {x.dtype}: the model was trained on {wanted}")

    def applied(self, x: Array, dtype: str) -> Array:
        """Scale samples for the network; returns an array of shape (N, features)."""
        flat = x.reshape(len(x), -1)
        wide: Array = (flat.astype(np.float64) - self.mean) / self.deviation
        far = np.argwhere(~(np.abs(wide) <= np.finfo(dtype).max))
        if len(far):
            row, column = map(int, far[0])
            held = f"which {dtype} cannot hold after the scaling of the training"
            why = held if np.isfinite(flat[row, column]) else "and must be finite"
            raise ValueError(
                f"[scale] element {column} of a sample is {flat[row, column]}, {why}: correct such samples or leave them out"
            )
        return wide.astype(dtype)

    def in_memory(self, x: Array, rows: Array, dtype: str) -> Array:
        """The samples with these numbers, scaled."""
        made = np.empty((len(rows), len(self.mean)), dtype)
        step = max(_CHUNK // max(len(self.mean), 1), 1)
        for first in range(0, len(rows), step):
            made[first : first + step] = self.applied(x[rows[first : first + step]], dtype)
        return made

    def note(self) -> str:
        """The scaling as a text, for the notes of a file."""
        said = {"shape": self.shape, "bytes": self.is_bytes, "mean": self.mean.tolist()}
        return json.dumps({**said, "deviation": self.deviation.tolist()})

    @classmethod
    def from_note(cls, text: str) -> Scaling:
        """Make the scaling from a text that ``note`` wrote. Other texts raise ``ValueError``."""
        try:
            said = json.loads(text)
            shape = tuple(said["shape"])
            mean, deviation = (np.asarray(said[name], np.float64) for name in ("mean", "deviation"))
            sound = all(type(n) is int and n >= 0 for n in shape) and type(said["bytes"]) is bool
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"the note of its input is damaged: {error}") from error
        width = 1
        for extent in shape:
            width *= extent
        if not sound or mean.shape != (width,) or deviation.shape != (width,) or not (deviation > 0).all():
            raise ValueError("the note of its input is damaged")
        return cls(shape, said["bytes"], mean, deviation)


class MappedBatches:
    """Batches of samples that stay on the disk, each read and scaled on demand, in the same order as a ``Loader``
    delivers them."""

    def __init__(
        self, scaling: Scaling, x: Array, y: Array, rows: Array, *, batch_size: int, dtype: str, seed: int | None
    ) -> None:
        self._scaling, self._x, self._y, self._rows = scaling, x, y, rows
        self._batch_size, self._dtype, self._seed, self._epoch = batch_size, dtype, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Deliver the batches of epoch ``epoch`` next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        samples = len(self._rows)
        order = None if self._seed is None else _core.Permutation(samples, self._seed, self._epoch)
        for first in range(0, samples, self._batch_size):
            count = min(self._batch_size, samples - first)
            places = np.arange(first, first + count) if order is None else order.range(first, count)
            rows = self._rows[places]
            yield self._scaling.applied(self._x[rows], self._dtype), self._y[rows]
