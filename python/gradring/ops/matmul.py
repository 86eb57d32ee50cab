"""matmul: the product of matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gradring.choices import Products
from gradring.ops._convert import may_share, result_dtype
from gradring.ops._declare import declare
from gradring.ops._eager import eager

Array = NDArray[Any]

__all__ = ["matmul"]


def _broadcast(
    a: Array,
    b: Array,
    trans_a: bool = False,
    trans_b: bool = False,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
    products: Products | None = None,
) -> Array:
    """Products of the last two axes; the axes before them broadcast. A vector counts as one row or column."""
    for name, array in (("a", a), ("b", b)):
        if array.ndim == 0:
            raise ValueError(f"[matmul] {name} is a scalar: must have at least one dimension")
    left = a[np.newaxis, :] if a.ndim == 1 else a.swapaxes(-1, -2) if trans_a else a
    right = b[:, np.newaxis] if b.ndim == 1 else b.swapaxes(-1, -2) if trans_b else b
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(f"[matmul] a is {a.shape}, b is {b.shape}: inner dimensions differ")
    try:
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise ValueError(f"[matmul] a is {a.shape}, b is {b.shape}: leading dimensions do not broadcast") from None
    rows = () if a.ndim == 1 else (left.shape[-2],)
    columns = () if b.ndim == 1 else (right.shape[-1],)
    shape = (*batch, *rows, *columns)
    kind = result_dtype("matmul", "a", a.dtype, dtype, out)
    if out is None:
        out = np.empty(shape, kind)
    elif not isinstance(out, np.ndarray):
        raise TypeError(f"[matmul] out is a {type(out).__name__}: must be a numpy.ndarray, because it is written to")
    elif out.dtype != kind or not out.dtype.isnative or not out.flags.aligned:
        raise TypeError(f"[matmul] out is of dtype {out.dtype}: must be an aligned {kind}")
    elif out.shape != shape:
        raise ValueError(f"[matmul] out is {out.shape}: must be {shape}")
    elif not out.flags.writeable:
        raise ValueError("[matmul] out is read-only")
    else:
        for name, operand in (("a", a), ("b", b)):
            if may_share(out, operand):
                raise ValueError(f"[matmul] out shares memory with {name}: give it memory of its own")
    full = out.reshape(*batch, left.shape[-2], right.shape[-1]) if out.flags.c_contiguous else None
    target = np.empty((*batch, left.shape[-2], right.shape[-1]), kind) if full is None else full
    left = np.broadcast_to(left, (*batch, *left.shape[-2:]))
    right = np.broadcast_to(right, (*batch, *right.shape[-2:]))
    for index in np.ndindex(*batch):
        matmul(left[index], right[index], out=target[index], products=products)
    if full is None:
        out[...] = target.reshape(shape)
    return out


def _gradients(dy: Any, arrays: list[Any], output: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
    """The gradients of products of matrices, vectors (one row or column) and stacks; those of broadcast stacks are summed."""
    a, b = arrays
    trans_a, trans_b = options.get("trans_a", False), options.get("trans_b", False)
    left = a[np.newaxis, :] if a.ndim == 1 else a.swapaxes(-1, -2) if trans_a else a
    right = b[:, np.newaxis] if b.ndim == 1 else b.swapaxes(-1, -2) if trans_b else b
    full = dy.reshape(*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])

    def of(whole: Array, operand: Array, given: Array, transposed: bool) -> Array:
        extra = whole.ndim - operand.ndim
        spread = [i for i, size in enumerate(operand.shape[:-2]) if size == 1]
        summed = whole.sum(axis=(*range(extra), *(extra + i for i in spread))).reshape(operand.shape)
        turned: Array = summed.swapaxes(-1, -2) if transposed and given.ndim > 1 else summed
        return turned.reshape(given.shape)

    products = options.get("products")
    da, db = matmul(full, right, trans_b=True, products=products), matmul(left, full, trans_a=True, products=products)
    return of(da, left, a, trans_a), of(db, right, b, trans_b)


@eager("matmul", results=("out",), other_ranks=_broadcast, gradients=_gradients)
def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
    products: Products | None = None,
) -> Array:
    """The matrix product ``op(a) @ op(b)``, where ``op`` transposes if the flag says so.

    Args:
        a: (m, k), or (k, m) with ``trans_a``; float32, float64, float16 or bfloat16 (of ml_dtypes), any strides (a
            transposed view is read in place). One dimension or more than two are treated as numpy.matmul treats them.
            Products of 16-bit floats are summed in float32, and each result is rounded once. The order of a sum, and so its
            last bits, differ between machines with and without a tile unit; ``GRADRING_ISA=avx512`` switches the unit off.
        b: (k, n), or (n, k) with ``trans_b``; the same dtype.
        out: where to write the result, (m, n); must not share memory with ``a`` or ``b``.
        dtype: the dtype of the result: that of the inputs, or of 16-bit inputs "float32", too. None: that of ``out``,
            or of the inputs.
        products: how float32 matrices are multiplied: "fma", "pieces3" or "pieces2", as ``gr.set_float32_products``
            describes them. None: as that function has chosen.

    Returns:
        (m, n): ``out`` if given, else a new array. The same bits for any number of threads.

    Raises:
        ValueError: shapes that do not fit, an ``out`` that overlaps an input or is read-only.
        TypeError: dtypes that differ or are none of these.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.matmul(np.ones((2, 3), np.float32), np.ones((4, 3), np.float32), trans_b=True).tolist()
    [[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 3.0]]
    """
    raise NotImplementedError


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for trans_a in (False, True):
        for trans_b in (False, True):
            a, b = rng.standard_normal((rows, 7)), rng.standard_normal((7, 19))
            yield {
                "a": a.T.copy() if trans_a else a,
                "b": b.T.copy() if trans_b else b,
                "trans_a": trans_a,
                "trans_b": trans_b,
            }


def _product(a: Any, b: Any, *, trans_a: bool, trans_b: bool) -> Mapping[str, Any]:
    return {"out": (a.T if trans_a else a) @ (b.T if trans_b else b)}


declare("matmul", reference=_product, samples=_samples, torch=_product)
