"""Matrix products and dense layers, per library, each at its best: transposed views made beforehand, results written
into arrays that exist (where the library can)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .contender import Work
from .step_contenders import threads

Array = np.ndarray[Any, Any]
ROOT = float(np.sqrt(2 / np.pi))


@cache
def _normals() -> Array:
    return np.random.default_rng(0).standard_normal(1 << 22, dtype=np.float32)


def dtype_of(case: dict[str, Any]) -> Any:
    """The dtype of the case's arrays; TypeError without the package that has it."""
    if (name := case.get("dtype", "float32")) != "bfloat16":
        return np.dtype(name)
    from gradring.ops._convert import learn_bfloat16

    return learn_bfloat16()


def operands(case: dict[str, Any]) -> tuple[Array, Array]:
    """The arrays a and b as they lie in memory."""
    m, n, k = case["m"], case["n"], case["k"]
    shapes = (k, m) if case["trans_a"] else (m, k), (n, k) if case["trans_b"] else (k, n)
    a, b = (_normals()[: rows * columns].reshape(rows, columns).astype(dtype_of(case)) for rows, columns in shapes)
    return a, b


CHECKED = 64  # rows and columns of a product that are compared with float64


def error_of(case: dict[str, Any], result: Any) -> float | None:
    """The largest error of an element of a product, relative to the sum of the absolute values of its terms."""
    if case["op"] != "matmul":
        return None
    if hasattr(result, "detach"):
        result = result.detach().double().numpy()
    # What is compared with sums in float64 has no more digits than they: sums in more digits tell their errors.
    exact = np.longdouble if case.get("dtype") == "float64" else np.float64
    a, b = (array.astype(exact) for array in operands(case))
    rows, columns = (np.unique(np.linspace(0, size - 1, CHECKED).astype(int)) for size in (case["m"], case["n"]))
    left, right = (a.T if case["trans_a"] else a)[rows], (b.T if case["trans_b"] else b)[:, columns]
    got = np.asarray(result).astype(exact)[np.ix_(rows, columns)]
    sizes = np.abs(left) @ np.abs(right)
    return float((np.abs(got - left @ right) / np.where(sizes > 0, sizes, 1)).max(initial=0))


def layer(case: dict[str, Any]) -> dict[str, Array]:
    """The arrays x, w, b, dy and, for a backward pass, the pre-activation."""
    rng = np.random.default_rng(0)
    rows, inner, outer = case["rows"], case["in"], case["out"]

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    x, w, b = draw(rows, inner), draw(inner, outer) / np.float32(inner**0.5), draw(outer)
    made = {"x": x, "w": w, "b": b, "dy": draw(rows, outer), "pre": x @ w + b}
    return {name: array.astype(dtype_of(case)) for name, array in made.items()}


def ours(case: dict[str, Any]) -> Work:
    """gradring, which writes results into given arrays."""
    import gradring as gr

    gr.set_num_threads(threads())
    if products := case.get("products"):
        gr.set_float32_products(products)
    if case["op"] == "matmul":
        a, b = operands(case)
        trans_a, trans_b = case["trans_a"], case["trans_b"]
        c = np.empty((case["m"], case["n"]), a.dtype)
        matmul = gr.ops.matmul
        return lambda: matmul(a, b, trans_a=trans_a, trans_b=trans_b, out=c)
    t = layer(case)
    x, w, b, dy, pre = t["x"], t["w"], t["b"], t["dy"], t["pre"]
    if case["op"] == "linear":
        y, saved = np.empty_like(pre), np.empty_like(pre)
        linear = gr.ops.linear
        return lambda: linear(x, w, b, activation="gelu", out=y, pre=saved)
    out = (np.empty_like(x), np.empty_like(w), np.empty_like(b))
    linear_vjp = gr.ops.linear_vjp
    return lambda: linear_vjp(dy, x, w, pre, activation="gelu", out=out)


def numpy(case: dict[str, Any]) -> Work:
    """NumPy: matmul into given arrays; gelu written with in-place operations. It has no fast products of bfloat16: those
    operands are cast to float32 and the result back, as its users must."""
    if case.get("dtype") == "bfloat16":
        return _numpy_by_casts(case)
    if case["op"] == "matmul":
        a, b = operands(case)
        left, right = a.T if case["trans_a"] else a, b.T if case["trans_b"] else b
        c = np.empty((case["m"], case["n"]), a.dtype)
        matmul = np.matmul
        return lambda: matmul(left, right, out=c)
    return _numpy_layer(case["op"], layer(case))[0]


def _numpy_layer(op: str, t: dict[str, Array]) -> tuple[Work, tuple[Array, ...]]:
    """The work on these arrays of one real dtype, and the arrays that hold its results."""
    x, w, b, dy, pre = t["x"], t["w"], t["b"], t["dy"], t["pre"]
    cubic, root, half, one = (x.dtype.type(v) for v in (0.044715, ROOT, 0.5, 1))
    if op == "linear":
        z, u, y = np.empty_like(pre), np.empty_like(pre), np.empty_like(pre)

        def forward() -> Array:
            np.matmul(x, w, out=z)
            np.add(z, b, out=z)
            np.multiply(z, z, out=u)
            np.multiply(u, cubic, out=u)
            np.add(u, one, out=u)
            np.multiply(u, z, out=u)
            np.multiply(u, root, out=u)
            np.tanh(u, out=u)
            np.add(u, one, out=u)
            np.multiply(z, u, out=y)
            np.multiply(y, half, out=y)
            return y

        return forward, (y, z)
    square, tanh, slope = np.empty_like(pre), np.empty_like(pre), np.empty_like(pre)
    dx, dw, db = np.empty_like(x), np.empty_like(w), np.empty_like(b)

    def backward() -> tuple[Array, ...]:
        np.multiply(pre, pre, out=square)
        np.multiply(square, cubic, out=tanh)
        np.add(tanh, one, out=tanh)
        np.multiply(tanh, pre, out=tanh)
        np.multiply(tanh, root, out=tanh)
        np.tanh(tanh, out=tanh)
        np.multiply(square, 3 * cubic, out=slope)
        np.add(slope, one, out=slope)
        np.multiply(slope, pre, out=slope)
        np.multiply(slope, root, out=slope)
        np.multiply(tanh, tanh, out=square)
        np.subtract(one, square, out=square)
        np.multiply(slope, square, out=slope)
        np.add(slope, tanh, out=slope)
        np.add(slope, one, out=slope)
        np.multiply(slope, half, out=slope)
        np.multiply(slope, dy, out=slope)
        np.sum(slope, axis=0, out=db)
        np.matmul(slope, w.T, out=dx)
        np.matmul(x.T, slope, out=dw)
        return dx, dw, db

    return backward, (dx, dw, db)


def _numpy_by_casts(case: dict[str, Any]) -> Work:
    narrow = dtype_of(case)
    if case["op"] == "matmul":
        a, b = operands(case)
        left, right = (np.empty(array.shape, np.float32) for array in (a, b))
        first, second = left.T if case["trans_a"] else left, right.T if case["trans_b"] else right
        wide, c = (np.empty((case["m"], case["n"]), dtype) for dtype in (np.float32, narrow))

        def product() -> Array:
            left[...], right[...] = a, b
            np.matmul(first, second, out=wide)
            c[...] = wide
            return c

        return product
    given = layer(case)
    used = ("x", "w", "b") if case["op"] == "linear" else ("x", "w", "dy", "pre")
    floats = {name: np.empty(array.shape, np.float32) for name, array in given.items()}
    inner, computed = _numpy_layer(case["op"], floats)
    results = tuple(np.empty(array.shape, narrow) for array in computed)

    def layer_by_casts() -> Any:
        for name in used:
            floats[name][...] = given[name]
        inner()
        for to, array in zip(results, computed, strict=True):
            to[...] = array
        return results[0] if case["op"] == "linear" else results

    return layer_by_casts


def torch(case: dict[str, Any]) -> Work:
    """PyTorch without autograd: mm, addmm, gelu and gelu_backward into given tensors."""
    import torch as library

    library.set_num_threads(threads())
    library.set_grad_enabled(False)

    def tensor(array: Array) -> Any:
        if array.dtype in (np.float32, np.float64):
            return library.from_numpy(array)
        return library.from_numpy(array.view(np.int16)).view(library.bfloat16)

    if case["op"] == "matmul":
        a, b = (tensor(array) for array in operands(case))
        left, right = a.t() if case["trans_a"] else a, b.t() if case["trans_b"] else b
        c = library.empty(case["m"], case["n"], dtype=a.dtype)
        mm = library.mm
        return lambda: mm(left, right, out=c)
    t = {name: tensor(array) for name, array in layer(case).items()}
    x, w, b, dy, pre = t["x"], t["w"], t["b"], t["dy"], t["pre"]
    aten = library.ops.aten
    if case["op"] == "linear":
        z, y = library.empty_like(pre), library.empty_like(pre)

        def forward() -> Any:
            library.addmm(b, x, w, out=z)
            return aten.gelu.out(z, approximate="tanh", out=y)

        return forward
    g, dx, dw, db = (library.empty_like(like) for like in (pre, x, w, b))
    x_t, w_t = x.t(), w.t()

    def backward() -> Any:
        aten.gelu_backward.grad_input(dy, pre, approximate="tanh", grad_input=g)
        library.sum(g, 0, out=db)
        library.mm(g, w_t, out=dx)
        library.mm(x_t, g, out=dw)
        return dx, dw, db

    return backward
