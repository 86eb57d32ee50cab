"""dropout and its vjp."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

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

    Which elements is a function of (seed, layer, epoch, sample, place in the sample), by Philox4x32-10: the same on any
    machine, for any number of threads and any place of the sample in a batch.

    Args:
        x: (samples, ...); float32 or float64.
        p: in [0, 1], rounded to a multiple of 1/65536.
        seed: an integer; without one, the next of the sequence that gr.seed starts.
        samples: (samples,) int64: each row's number; without them, 0, 1, 2, ...
        layer, epoch: integers of 32 bits, for masks that differ by layer and by epoch.
        out: where to write the result, as x; may be x.

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
    """The gradient of dropout by its input: ``dy`` under the same mask, which is drawn again, not stored.

    Args:
        dy: the gradient by the output, (samples, ...); float32 or float64.
        p, seed, samples, layer, epoch: as they were given to dropout.
        out: where to write the result, as dy; may be dy.

    >>> import numpy as np, gradring as gr
    >>> x = np.ones((4, 8), np.float32)
    >>> bool((gr.ops.dropout_vjp(x, 0.25, seed=3) == gr.ops.dropout(x, 0.25, seed=3)).all())
    True
    """
    raise NotImplementedError
