"""The MLP training step in JAX. Its epochs use the same step."""

from __future__ import annotations

import os
from typing import Any

from gradring.bench.contender import Work
from gradring.bench.step_contenders import LEARNING_RATE, MOMENTUM, data, threads, weights


def start_jax() -> None:
    """Sets JAX's threads and its dispatch; call before the first array is made.

    XLA ignores thread counts from outside, so one thread means one core for the process. Dispatching in the calling
    thread saves the hand-over that every synchronous step would pay.
    """
    if threads() == 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import jax

    config: Any = jax.config  # Any, because the methods of jax.config have no types
    config.update("jax_cpu_enable_async_dispatch", False)


def make_update(case: dict[str, Any]) -> Any:
    """(update, state): update(parameters, momentum, x, y) -> parameters, momentum, loss; state is the first two."""
    import jax
    import jax.numpy as jnp

    params = [jnp.asarray(array) for layer in weights(case) for array in layer]

    def loss_of(params: Any, h: Any, labels: Any) -> Any:
        for i in range(0, len(params), 2):
            h = h @ params[i] + params[i + 1]
            if i + 2 < len(params):
                h = jax.nn.relu(h)
        log_p = jax.nn.log_softmax(h)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    def update(params: Any, momentum: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        momentum = [MOMENTUM * m + g for m, g in zip(momentum, grads, strict=True)]
        params = [p - LEARNING_RATE * m for p, m in zip(params, momentum, strict=True)]
        return params, momentum, loss

    return update, (params, [jnp.zeros_like(array) for array in params])


def jax_jit(case: dict[str, Any]) -> Work:
    """JAX: the whole step in one jit, parameters and momentum donated."""
    import jax
    import jax.numpy as jnp

    start_jax()
    xs, ys = data(case)
    x, y = jnp.asarray(xs), jnp.asarray(ys)
    update, (params, momentum) = make_update(case)
    compiled = jax.jit(update, donate_argnums=(0, 1))
    state: list[Any] = [params, momentum]

    def step() -> float:
        state[0], state[1], loss = compiled(state[0], state[1], x, y)
        return float(loss)

    return step
