"""cast: between dtypes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gradring.ir import Node
from gradring.ops._declare import Tape, declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["cast"]


def _gradients(dy: Any, arrays: list[Any], output: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
    return (cast(dy, arrays[0].dtype),)


@eager("cast", gradients=_gradients)
def cast(x: ArrayLike, dtype: DTypeLike, *, out: Array | None = None) -> Array:
    """``x`` in another dtype, element by element.

    To a float of 16, 32 or 64 bits it rounds once, to the nearest, ties to even; too large a number becomes infinity. To an
    integer, a float is rounded towards zero and an integer wraps; the result for a float that the integer cannot hold is
    not defined. To bool, everything but zero is True.

    Args:
        x: bool, an integer or a float of at most 64 bits, bfloat16 (of the package ml_dtypes) included; any strides.
        dtype: such a dtype, or its name.
        out: where to write the result: an array of this dtype, of the shape of x, apart from x.

    Returns:
        ``out`` if given, else a new array.

    Raises:
        TypeError: no such dtype, or bfloat16 without ml_dtypes.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.cast(np.array([1.0, 1.0004, 70000.0], np.float32), "float16").tolist()
    [1.0, 1.0, inf]
    """
    raise NotImplementedError


def _rule(tape: Tape, node: Node, dy: str) -> None:
    x = node.inputs["x"]
    dtype = tape.graph.values[x].dtype
    if dtype.startswith(("float", "bfloat")):
        tape.contribute(x, "cast", "y", {"x": dy}, dtype=dtype)


def _reference(x: Array, dtype: str) -> dict[str, Array]:
    return {"y": x.astype(dtype)}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    yield {"x": rng.standard_normal((rows, 7)), "dtype": "float64"}


def _torch(x: Any, dtype: str) -> dict[str, Any]:
    import torch

    return {"y": x.to(getattr(torch, dtype))}


declare("cast", reference=_reference, samples=_samples, torch=_torch, rule=_rule)
