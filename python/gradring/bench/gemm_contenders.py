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


def operands(case: dict[str, Any]) -> tuple[Array, Array]:
    """The arrays a and b as they lie in memory."""
    m, n, k = case["m"], case["n"], case["k"]
    shapes = (k, m) if case["trans_a"] else (m, k), (n, k) if case["trans_b"] else (k, n)
    a, b = (_normals()[: rows * columns].reshape(rows, columns).copy() for rows, columns in shapes)
    return a, b


def layer(case: dict[str, Any]) -> dict[str, Array]:
    """The arrays x, w, b, dy and, for a backward pass, the pre-activation."""
    rng = np.random.default_rng(0)
    rows, inner, outer = case["rows"], case["in"], case["out"]

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    x, w, b = draw(rows, inner), draw(inner, outer) / np.float32(inner**0.5), draw(outer)
    return {"x": x, "w": w, "b": b, "dy": draw(rows, outer), "pre": x @ w + b}


def ours(case: dict[str, Any]) -> Work:
    """gradring, which writes results into given arrays."""
    import gradring as gr

    gr.set_num_threads(threads())
    if case["op"] == "matmul":
        a, b = operands(case)
        trans_a, trans_b = case["trans_a"], case["trans_b"]
        c = np.empty((case["m"], case["n"]), np.float32)
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
    """NumPy: matmul into given arrays; gelu written with in-place operations."""
    if case["op"] == "matmul":
        a, b = operands(case)
        left, right = a.T if case["trans_a"] else a, b.T if case["trans_b"] else b
        c = np.empty((case["m"], case["n"]), np.float32)
        matmul = np.matmul
        return lambda: matmul(left, right, out=c)
    t = layer(case)
    x, w, b, dy, pre = t["x"], t["w"], t["b"], t["dy"], t["pre"]
    cubic, root, half, one = (np.float32(v) for v in (0.044715, ROOT, 0.5, 1))
    if case["op"] == "linear":
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
            return np.multiply(y, half, out=y)

        return forward
    square, tanh, slope = np.empty_like(pre), np.empty_like(pre), np.empty_like(pre)
    dx, dw, db = np.empty_like(x), np.empty_like(w), np.empty_like(b)

    def backward() -> Array:
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
        return np.matmul(x.T, slope, out=dw)

    return backward


def torch(case: dict[str, Any]) -> Work:
    """PyTorch without autograd: mm, addmm, gelu and gelu_backward into given tensors."""
    import torch as library

    library.set_num_threads(threads())
    library.set_grad_enabled(False)
    tensor = library.from_numpy
    if case["op"] == "matmul":
        a, b = (tensor(array) for array in operands(case))
        left, right = a.t() if case["trans_a"] else a, b.t() if case["trans_b"] else b
        c = library.empty(case["m"], case["n"])
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
        return library.mm(x_t, g, out=dw)

    return backward
