"""Data-parallel training steps in JAX: one process with two host devices, over which each batch is sharded."""

from __future__ import annotations

import os
from typing import Any

from gradring.bench.contender import Work
from gradring.bench.dp_contenders import LEARNING_RATE
from gradring.bench.step_contenders import data, weights

BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 0.01


def sharded(case: dict[str, Any]) -> Work:
    """JAX: the whole step in one jit, over two host devices; parameters and state are donated."""
    if case.get("custom"):
        raise NotImplementedError("it computes gradients itself")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    config: Any = jax.config
    config.update("jax_cpu_enable_async_dispatch", False)
    mesh = Mesh(np.array(jax.devices()[: case["ranks"]]), ("batch",))
    split, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
    params = [jax.device_put(array, whole) for layer in weights(case) for array in layer]
    zeros = [jax.device_put(np.zeros(p.shape, np.float32), whole) for p in params]
    state: Any = (params, zeros, [jnp.array(z, copy=True) for z in zeros], jax.device_put(jnp.zeros(()), whole))
    x, y = (jax.device_put(array, split) for array in data(case))

    def loss_of(layers: Any, h: Any, labels: Any) -> Any:
        for i in range(0, len(layers), 2):
            h = h @ layers[i] + layers[i + 1]
            if i + 2 < len(layers):
                h = jax.nn.relu(h)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(h), labels[:, None], axis=1))

    def update(before: Any, inputs: Any, labels: Any) -> Any:
        layers, ms, vs, t = before
        loss, grads = jax.value_and_grad(loss_of)(layers, inputs, labels)
        t = t + 1
        ms = [BETAS[0] * m + (1 - BETAS[0]) * g for m, g in zip(ms, grads, strict=True)]
        vs = [BETAS[1] * v + (1 - BETAS[1]) * g * g for v, g in zip(vs, grads, strict=True)]
        first, second = 1 - BETAS[0] ** t, 1 - BETAS[1] ** t
        layers = [
            p * (1 - LEARNING_RATE * DECAY) - LEARNING_RATE * (m / first) / (jnp.sqrt(v / second) + EPS)
            for p, m, v in zip(layers, ms, vs, strict=True)
        ]
        return (layers, ms, vs, t), loss

    step = jax.jit(update, donate_argnums=0)
    held = [state]

    def work() -> float:
        held[0], loss = step(held[0], x, y)
        return float(loss)

    return work
