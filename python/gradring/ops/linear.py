"""linear: a matrix product with bias and activation, and its vjp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gradring.choices import Activation, Products
from gradring.ir import NARROW, Node
from gradring.ops._declare import Tape, declare
from gradring.ops._eager import eager
from gradring.ops.activation import NEEDS_INPUT, activated, activated_vjp, torch_activated

Array = NDArray[Any]

__all__ = ["linear", "linear_vjp"]


def _gradients(dy: Any, arrays: list[Any], output: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
    activation = options.get("activation")
    products = options.get("products")
    kept = linear(*arrays, products=products) if activation in NEEDS_INPUT else output
    return tuple(linear_vjp(dy, arrays[0], arrays[1], kept, activation=activation, products=products))[: len(arrays)]


@eager("linear", gradients=_gradients)
def linear(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    activation: Activation | None = None,
    out: Array | None = None,
    pre: Array | None = None,
    dtype: DTypeLike | None = None,
    products: Products | None = None,
) -> Array:
    """A dense layer in one pass: ``activation(x @ w + b)``, with bias and activation applied while the product is in
    cache.

    Args:
        x: (N, in), float32, float64, float16 or bfloat16 (of the package ml_dtypes), any strides; more leading dimensions
            are kept. Products of 16-bit floats, the bias and the activation are computed in float32, and each result is
            rounded once.
            The last bits of sums differ between machines with and without a tile unit (see ``matmul``).
        w: (in, out), the same dtype.
        b: (out,), or None; the same dtype, or beside 16-bit floats float32, too.
        activation: None, "relu", "gelu" (the tanh form), "silu", "tanh" or "sigmoid".
        out: where to write the result, (N, out); must not share memory with the inputs.
        pre: if given, receives ``x @ w + b``, (N, out), which the gradient of gelu and silu needs.
        dtype: the dtype of the result: that of the inputs, or of 16-bit inputs "float32", too. None: that of ``out``,
            or of the inputs.
        products: how float32 matrices are multiplied: "fma", "pieces3" or "pieces2", as ``gr.set_float32_products``
            describes them. None: as that function has chosen.

    Returns:
        (N, out): ``out`` if given, else a new array. The same bits for any number of threads.

    Raises:
        ValueError: shapes that do not fit, an unknown activation, an ``out`` that overlaps an input or is read-only.
        TypeError: dtypes that differ or are none of these.

    >>> import numpy as np, gradring as gr
    >>> gr.ops.linear(np.ones((1, 2)), np.eye(2), np.array([-3.0, 1.0]), activation="relu").tolist()
    [[0.0, 2.0]]
    """
    raise NotImplementedError


@eager("linear_vjp", results=("dx", "dw", "db"))
def linear_vjp(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    y_or_pre: ArrayLike | None = None,
    *,
    activation: Activation | None = None,
    need_dx: bool = True,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
    products: Products | None = None,
) -> tuple[Array | None, Array, Array]:
    """The gradients of :func:`linear`: with ``g = dy * activation'``, ``dx = g @ w.T``, ``dw = x.T @ g``, ``db = g.sum(0)``.

    Args:
        dy: the gradient of the layer's output, (N, out), float32, float64, float16 or bfloat16; x and w have the same dtype.
        x: the layer's input, (N, in).
        w: the layer's weight, (in, out).
        y_or_pre: with an activation, the layer's output (relu, tanh, sigmoid) or what went into the activation
            (gelu, silu; see ``linear(pre=...)``), (N, out).
        activation: the same as for :func:`linear`.
        need_dx: False skips dx, as for a first layer; None is returned in its place.
        out: (dx, dw, db), arrays to write to; None in a place makes a new array. Beside 16-bit floats they may be float32,
            too: sums are in float32, and ``g`` is rounded to 16 bits before it is multiplied.
        products: how float32 matrices are multiplied, as for :func:`linear`.

    Returns:
        dx (N, in), dw (in, out), db (out,). The same bits for any number of threads.

    Raises:
        ValueError: shapes that do not fit, an unknown activation, a result that overlaps an input or is read-only.
        TypeError: dtypes that differ or are none of these.

    >>> import numpy as np, gradring as gr
    >>> dx, dw, db = gr.ops.linear_vjp(np.ones((2, 1)), np.array([[1.0], [2.0]]), np.array([[3.0]]))
    >>> dx.tolist(), dw.tolist(), db.tolist()
    ([[3.0], [3.0]], [[3.0]], [2.0])
    """
    raise NotImplementedError


def _reference(x: Array, w: Array, b: Any = 0, *, activation: str) -> Mapping[str, Any]:
    pre = x @ w + b
    if activation == "none":
        return {"y": pre}
    results = {"y": activated(pre, activation)}
    return {**results, "pre": pre} if activation in NEEDS_INPUT else results


def _reference_vjp(dy: Array, x: Array, w: Array, y_or_pre: Any = None, *, activation: str) -> Mapping[str, Any]:
    g = dy if activation == "none" else activated_vjp(dy, np.asarray(y_or_pre), activation)
    rows = g.reshape(-1, g.shape[-1])
    return {"dx": g @ w.T, "dw": x.reshape(-1, x.shape[-1]).T @ rows, "db": rows.sum(axis=0)}


def _reference_dx(dy: Array, w: Array, source: Any = None, *, activation: str) -> Mapping[str, Any]:
    dx = dy @ w.T
    return {"dx": dx if source is None else activated_vjp(dx, source, activation)}


def _reference_dw(x: Array, dy: Array) -> Mapping[str, Any]:
    return {"dw": x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])}


def _torch(x: Any, w: Any, b: Any = None, *, activation: str) -> Mapping[str, Any]:
    import torch

    pre = torch.nn.functional.linear(x, w.t(), b)
    return {"y": pre if activation == "none" else torch_activated(pre, activation)}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    x, w, b = rng.standard_normal((rows, 7)), rng.standard_normal((7, 19)), rng.standard_normal(19)
    for activation in ("none", "relu", "gelu", "silu", "tanh", "sigmoid"):
        yield {"x": x, "w": w, "b": b, "activation": activation}
    yield {"x": rng.standard_normal((2, rows, 3)), "w": rng.standard_normal((3, 2))}


def _samples_vjp(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    for sample in _samples(rng, rows):
        activation = sample.get("activation", "none")
        made = _reference(sample["x"], sample["w"], sample.get("b", 0), activation=activation)
        kept = {} if activation == "none" else {"y_or_pre": made.get("pre", made["y"])}
        dy = rng.standard_normal(made["y"].shape)
        yield {"dy": dy, "x": sample["x"], "w": sample["w"], **kept, "activation": activation}


def _as(tape: Tape, value: str, dtype: str) -> str:
    """The value in a dtype: itself, or a cast of it."""
    of = tape.graph.values[value]
    if of.dtype == dtype:
        return value
    made = tape.value(f"{value}.{dtype}", of.shape, dtype)
    tape.node("cast", {"x": value}, {"y": made}, dtype=dtype)
    return made


def _rule(tape: Tape, node: Node, dy: str) -> None:
    x, w = node.inputs["x"], node.inputs["w"]
    activation = node.attributes.get("activation")
    operands = tape.graph.values[x].dtype
    # Everything but the products themselves is computed in float32 where the products' operands have 16 bits.
    real = "float32" if operands in NARROW else operands
    if activation is not None:
        source = _as(tape, node.outputs["pre" if activation in NEEDS_INPUT else "y"], real)
        dy = _as(tape, dy, real)
        of = tape.graph.values[dy]
        before = tape.value(f"d({node.outputs['y']}.pre)", of.shape, of.dtype)
        tape.node("activation_vjp", {"dy": dy, "source": source}, {"dx": before}, activation=activation)
        dy = before
    # Make the bias's gradient first, so that its sums can be fused into the node that makes dy; then the input's, which
    # the next layer needs.
    if "b" in node.inputs and tape.graph.values[node.inputs["b"]].dtype == real:
        tape.contribute(node.inputs["b"], "column_sums", "y", {"x": _as(tape, dy, real)})
    elif "b" in node.inputs:
        bias = tape.graph.values[node.inputs["b"]]
        sums = tape.value(f"d({bias.name}).{real}", bias.shape, real)
        tape.node("column_sums", {"x": _as(tape, dy, real)}, {"y": sums})
        tape.contribute(bias.name, "cast", "y", {"x": sums}, dtype=bias.dtype)
    dy = _as(tape, dy, operands)
    tape.contribute(x, "linear_dx", "dx", {"dy": dy, "w": w})
    tape.contribute(w, "linear_dw", "dw", {"x": x, "dy": dy})


declare("linear", reference=_reference, samples=_samples, torch=_torch, rule=_rule)
declare("linear_vjp", reference=_reference_vjp, samples=_samples_vjp)
declare("linear_dx", reference=_reference_dx)
declare("linear_dw", reference=_reference_dw)
