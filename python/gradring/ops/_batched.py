"""matmul and linear on other than two dimensions, by NumPy's rules, through the native functions on matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradring import _core
from gradring.ops._convert import may_share

Array = np.ndarray[Any, Any]


def matmul(a: Array, b: Array, trans_a: bool, trans_b: bool, out: Array | None) -> Array:
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
    if out is None:
        out = np.empty(shape, a.dtype)
    elif not isinstance(out, np.ndarray) or out.dtype != a.dtype:
        raise TypeError(f"[matmul] out must be an array of {a.dtype}, as the inputs are")
    elif out.shape != shape:
        raise ValueError(f"[matmul] out is {out.shape}: must be {shape}")
    elif not out.flags.writeable:
        raise ValueError("[matmul] out is read-only")
    else:
        _require_apart("matmul", {"out": out}, {"a": a, "b": b})
    full = out.reshape(*batch, left.shape[-2], right.shape[-1]) if out.flags.c_contiguous else None
    target = np.empty((*batch, left.shape[-2], right.shape[-1]), a.dtype) if full is None else full
    left = np.broadcast_to(left, (*batch, *left.shape[-2:]))
    right = np.broadcast_to(right, (*batch, *right.shape[-2:]))
    for index in np.ndindex(*batch):
        _core.matmul(left[index], right[index], out=target[index])
    if full is None:
        out[...] = target.reshape(shape)
    return out


def linear(x: Array, w: Array, b: Any, activation: str | None, out: Array | None, pre: Array | None) -> Array:
    """linear with any number of leading dimensions: they are flattened and restored."""
    if x.ndim == 0 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"[linear] w is {w.shape}, x is {x.shape}: x.shape[-1] must be {w.shape[0]}")
    shape = (*x.shape[:-1], w.shape[1])
    results = {"pre": pre, "out": out}
    # Before x is flattened, which may copy it: what overlaps is refused whether or not it would be harmless.
    _require_apart("linear", results, {"x": x, "w": w, "b": b})
    flat = {name: _flat_result("linear", name, array, shape) for name, array in results.items()}
    result = _core.linear(_flat(x), w, b, activation=activation, **flat)
    return result.reshape(shape) if out is None else out


def linear_vjp(
    dy: Array, x: Array, w: Array, saved: Any, activation: str | None, need_dx: bool, out: Any
) -> tuple[Array | None, Array, Array]:
    """linear_vjp with any number of leading dimensions."""
    if x.ndim == 0 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"[linear_vjp] w is {w.shape}, x is {x.shape}: x.shape[-1] must be {w.shape[0]}")
    shape = (*x.shape[:-1], w.shape[1])
    if dy.shape != shape:
        raise ValueError(f"[linear_vjp] dy is {dy.shape}, x is {x.shape}: dy must be {shape}")
    if saved is not None:
        saved = np.asarray(saved)
        if saved.shape != shape:
            raise ValueError(f"[linear_vjp] y_or_pre is {saved.shape}: must be {shape}, as dy")
    if out is not None and (not isinstance(out, tuple) or len(out) != 3):
        raise TypeError("[linear_vjp] out must be a tuple (dx, dw, db) of arrays or None")
    dx, dw, db = (None, None, None) if out is None else out
    operands = {"dy": dy, "x": x, "w": w, "y_or_pre": saved}
    _require_apart("linear_vjp", {"dx": dx if need_dx else None, "dw": dw, "db": db}, operands)
    flat_dx = _flat_result("linear_vjp", "dx", dx, x.shape) if need_dx else None
    made, dw, db = _core.linear_vjp(
        _flat(dy),
        _flat(x),
        w,
        None if saved is None else _flat(saved),
        activation=activation,
        need_dx=need_dx,
        out=(flat_dx, dw, db),
    )
    if made is not None and dx is None:
        dx = made.reshape(x.shape)
    return (dx if need_dx else None), dw, db


def _flat(array: Array) -> Array:
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _flat_result(op: str, name: str, array: Any, shape: tuple[int, ...]) -> Array | None:
    if array is None:
        return None
    if not isinstance(array, np.ndarray) or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"[{op}] {name} must be a C-contiguous array of shape {shape}")
    return _flat(array)


def _require_apart(op: str, results: Mapping[str, Any], operands: Mapping[str, Any]) -> None:
    """``ValueError`` if a result shares an element with an operand or another result: see require_results_apart in
    csrc/bindings/array.h, which does the same for the native functions."""
    others = {name: array for name, array in operands.items() if isinstance(array, np.ndarray)}
    for name, result in results.items():
        if not isinstance(result, np.ndarray):
            continue
        for other, array in others.items():
            if may_share(result, array):
                raise ValueError(f"[{op}] {name} shares memory with {other}: give it memory of its own")
        others[name] = result
