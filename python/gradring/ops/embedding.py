"""embedding and its vjp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradring.ops._declare import DY, Derivative, declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["embedding", "embedding_vjp"]


def _gradients(dy: Any, arrays: list[Any], output: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
    return None, embedding_vjp(dy, arrays[0], len(arrays[1]))


@eager("embedding", hidden="fault", gradients=_gradients)
def embedding(ids: ArrayLike, table: ArrayLike, *, out: Array | None = None) -> Array:
    """``table[ids]``: the row of a table for each id.

    Args:
        ids: any shape; int32, int64 or uint8, each in [0, rows). Negative ids do not count from the end.
        table: (rows, n); float32 or float64.
        out: where to write the result, (*ids.shape, n); must not share memory with the table.

    Returns:
        (*ids.shape, n): ``out`` if given, else a new array.

    Raises:
        ValueError: an id outside its range, named with its place in ``ids``.
        TypeError: ids that are not integers.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.embedding(np.array([[2, 0]]), np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])).tolist()
    [[[4.0, 5.0], [0.0, 1.0]]]
    """
    raise NotImplementedError


@eager("embedding_vjp", results=("dtable",), hidden="fault")
def embedding_vjp(dy: ArrayLike, ids: ArrayLike, rows: int, *, out: Array | None = None) -> Array:
    """The gradient of embedding by its table: row r is the sum of ``dy`` over all places where ``ids`` is r.

    The places are sorted by row first, so each row of the result is written once, and its sum runs in the order of the
    places, for any number of threads.

    Args:
        dy: the gradient with respect to the output, (*ids.shape, n); float32 or float64.
        ids: the same as for embedding.
        rows: the number of the table's rows.
        out: where to write the result, (rows, n); must not share memory with ``dy``.

    Returns:
        (rows, n): ``out`` if given, else a new array, with zeros in the rows that no id names.

    Raises:
        ValueError: shapes that do not fit, or an id outside its range, named with its place in ``ids``.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.embedding_vjp(np.array([[1.0], [2.0], [4.0]]), np.array([2, 0, 2]), 4).tolist()
    [[2.0], [0.0], [5.0], [0.0]]
    """
    raise NotImplementedError


def _reference(ids: Array, table: Array) -> Mapping[str, Any]:
    return {"y": table[ids]}


def _reference_vjp(dy: Array, ids: Array, *, rows: int) -> Mapping[str, Any]:
    dtable = np.zeros((rows, dy.shape[-1]))
    np.add.at(dtable, ids, dy)
    return {"dtable": dtable}


def _torch(ids: Any, table: Any) -> Mapping[str, Any]:
    import torch

    return {"y": torch.nn.functional.embedding(ids, table)}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    yield {"ids": rng.integers(0, 31, (rows, 7)), "table": rng.standard_normal((31, 19))}
    yield {"ids": rng.integers(0, 3, rows).astype(np.int32), "table": rng.standard_normal((3, 1))}


def _samples_vjp(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for sample in _samples(rng, rows):
        ids, table = sample["ids"], sample["table"]
        yield {"dy": rng.standard_normal((*ids.shape, table.shape[1])), "ids": ids, "rows": len(table)}


declare(
    "embedding",
    reference=_reference,
    samples=_samples,
    torch=_torch,
    derivative=Derivative(
        "embedding_vjp",
        {"dy": DY, "ids": "ids"},
        {"table": "dtable"},
        lambda attributes, shapes: {"rows": shapes["table"][0]},
    ),
)
declare("embedding_vjp", reference=_reference_vjp, samples=_samples_vjp)
