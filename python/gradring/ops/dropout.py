"""dropout and its vjp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import DY, Derivative, declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["dropout", "dropout_vjp"]


@eager("dropout")
def dropout(
    x: ArrayLike,
    p: float = 0.5,
    *,
    seed: int | None = None,
    samples: ArrayLike | None = None,
    layer: int = 0,
    epoch: int = 0,
    out: Array | None = None,
) -> Array:
    """Zero each element with probability ``p`` and divide the others by ``1 - p`` (Srivastava et al., "Dropout", 2014).

    Philox4x32-10 chooses the elements by (seed, layer, epoch, sample, place in the sample): they are the same on any
    machine, for any number of threads and any place of the sample in a batch.

    Args:
        x: (samples, ...); float32 or float64.
        p: in [0, 1], rounded to a multiple of 1/65536.
        seed: an integer; without one, the next of the sequence that gr.seed starts.
        samples: (samples,) int64: each row's number; without them, 0, 1, 2, ...
        layer, epoch: integers of 32 bits, for masks that differ by layer and by epoch.
        out: where to write the result, an array like x; may be x.

    >>> import numpy as np, gradring as gr
    >>> y = gr.ops.dropout(np.ones((1000, 100), np.float32), 0.5, seed=1)
    >>> sorted(set(y.ravel().tolist())), bool(abs(y.mean() - 1) < 0.02)
    ([0.0, 2.0], True)
    """
    raise NotImplementedError


@eager("dropout", names={"dy": "x"})
def dropout_vjp(
    dy: ArrayLike,
    p: float = 0.5,
    *,
    seed: int,
    samples: ArrayLike | None = None,
    layer: int = 0,
    epoch: int = 0,
    out: Array | None = None,
) -> Array:
    """The gradient of dropout by its input: ``dy`` under the same mask, which is computed again and not stored.

    Args:
        dy: the gradient with respect to the output, (samples, ...); float32 or float64.
        p, seed, samples, layer, epoch: the same as for dropout.
        out: where to write the result, an array like dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> x = np.ones((4, 8), np.float32)
    >>> bool((gr.ops.dropout_vjp(x, 0.25, seed=3) == gr.ops.dropout(x, 0.25, seed=3)).all())
    True
    """
    raise NotImplementedError


def _philox(counter: list[Any], keys: tuple[int, int]) -> list[Any]:
    """Philox4x32-10 (Salmon, Moraes, Dror and Shaw, 2011) on arrays of counters; each word of the counters is an
    array."""
    words = [np.asarray(word, np.uint64) & np.uint64(0xFFFFFFFF) for word in counter]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * words[0], np.uint64(0xCD9E8D57) * words[2]
        shift = np.uint64(32)
        words = [
            (second >> shift) ^ words[1] ^ np.uint64(keys[0]),
            second & low,
            (first >> shift) ^ words[3] ^ np.uint64(keys[1]),
            first & low,
        ]
        keys = ((keys[0] + 0x9E3779B9) % 2**32, (keys[1] + 0xBB67AE85) % 2**32)
    return words


def mask(shape: tuple[int, ...], samples: Any, p: float, seed: int, layer: int, epoch: int) -> Array:
    """The factors by which dropout multiplies elements, in NumPy: 0, or 1 / (1 - p)."""
    seed %= 2**64
    key = [int(word) for word in _philox([layer, epoch, 0x64726F70, 0], (seed % 2**32, seed >> 32))[:2]]
    rows, columns = shape[0], int(np.prod(shape[1:]))
    numbers = np.arange(rows) if samples is None else np.asarray(samples)
    sample, column = np.asarray(numbers).astype(np.uint64)[:, np.newaxis], np.arange(columns)
    words = _philox([column // 8 + 0 * sample.astype(int), 0, sample, sample >> np.uint64(32)], (key[0], key[1]))
    chosen = np.choose(np.broadcast_to(column % 8 // 2, (rows, columns)), np.broadcast_arrays(*words))
    number = chosen >> (16 * (column % 2)).astype(np.uint64) & np.uint64(0xFFFF)
    threshold = int(p * 65536 + 0.5)
    scale = 65536 / (65536 - threshold) if threshold < 65536 else 0.0
    return np.where(number >= threshold, scale, 0.0).reshape(shape)


def _reference(x: Array, samples: Any = None, *, p: float, seed: int, layer: int, epoch: int) -> Mapping[str, Any]:
    kept = mask(x.shape, samples, p, seed, layer, epoch)
    return {"y": np.where(kept == 0, 0, x * kept)}


def _torch(x: Any, samples: Any = None, *, p: float, seed: int, layer: int, epoch: int) -> Mapping[str, Any]:
    import torch

    return {"y": x * torch.from_numpy(mask(tuple(x.shape), samples, p, seed, layer, epoch))}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    x = rng.standard_normal((rows, 3, 7))
    yield {"x": x, "p": 0.25, "seed": int(rng.integers(2**62)), "layer": 3, "epoch": 5}
    yield {"x": x, "samples": rng.integers(0, 2**62, rows), "seed": 1}


declare(
    "dropout",
    reference=_reference,
    samples=_samples,
    torch=_torch,
    # The backward pass computes the mask again from the same key, which is cheaper than keeping it.
    derivative=Derivative("dropout", {"x": DY, "samples": "samples", "draw": "draw"}, {"x": "y"}),
)
