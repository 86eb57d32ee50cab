"""Matrix products and dense layers in JAX."""

from __future__ import annotations

from typing import Any

from step_jax import start_jax

from gradring.bench.contender import Work
from gradring.bench.gemm_contenders import layer, operands


def jax(case: dict[str, Any]) -> Work:
    """JAX: everything in one jit, which fuses what it can; results are new arrays."""
    start_jax()
    import jax as library
    import jax.numpy as jnp

    library.config.update("jax_enable_x64", case.get("dtype") == "float64")  # otherwise its arrays are float32

    if case["op"] == "matmul":
        a, b = (jnp.asarray(array) for array in operands(case))
        dimensions = (((0 if case["trans_a"] else 1,), (1 if case["trans_b"] else 0,)), ((), ()))
        product = library.jit(lambda a, b: library.lax.dot_general(a, b, dimensions))
        return lambda: product(a, b).block_until_ready()
    t = {name: jnp.asarray(array) for name, array in layer(case).items()}

    def activation(z: Any) -> Any:
        return library.nn.gelu(z, approximate=True)

    if case["op"] == "linear":

        def both(x: Any, w: Any, b: Any) -> Any:
            z = x @ w + b
            return activation(z), z

        forward = library.jit(both)
        return lambda: library.block_until_ready(forward(t["x"], t["w"], t["b"]))

    def gradients(dy: Any, x: Any, w: Any, pre: Any) -> Any:
        (g,) = library.vjp(activation, pre)[1](dy)
        return g @ w.T, x.T @ g, g.sum(0)

    backward = library.jit(gradients)
    return lambda: library.block_until_ready(backward(t["dy"], t["x"], t["w"], t["pre"]))
