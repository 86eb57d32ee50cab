"""The MLP training step in JAX. Its epochs use the same step."""

from __future__ import annotations

import os
from typing import Any

from gradring.bench.contender import Work
from gradring.bench.step_contenders import (
    BETA1,
    BETA2,
    EPSILON,
    LEARNING_RATE,
    MOMENTUM,
    data,
    optimizer_of,
    threads,
    weights,
)


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
    """(update, state): update(parameters, slots, x, y) -> parameters, slots, loss; state is the first two. The slots are the
    optimizer's state."""
    import jax
    import jax.numpy as jnp

    params = [jnp.asarray(array) for layer in weights(case) for array in layer]

    def product(a: Any, b: Any) -> Any:
        narrow = case.get("dtype", "float32")
        if narrow == "float32":
            return a @ b
        return jnp.matmul(a.astype(narrow), b.astype(narrow), preferred_element_type=jnp.float32)

    def loss_of(params: Any, h: Any, labels: Any) -> Any:
        for i in range(0, len(params), 2):
            h = product(h, params[i]) + params[i + 1]
            if i + 2 < len(params):
                h = jax.nn.relu(h)
        log_p = jax.nn.log_softmax(h)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    def with_momentum(params: Any, momentum: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        momentum = [MOMENTUM * m + g for m, g in zip(momentum, grads, strict=True)]
        params = [p - LEARNING_RATE * m for p, m in zip(params, momentum, strict=True)]
        return params, momentum, loss

    def sgd(params: Any, slots: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        return [p - LEARNING_RATE * g for p, g in zip(params, grads, strict=True)], slots, loss

    def adam(params: Any, slots: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        number, first, second = slots
        number = number + 1
        size, root = LEARNING_RATE / (1 - BETA1**number), (1 - BETA2**number) ** -0.5
        first = [BETA1 * m + (1 - BETA1) * g for m, g in zip(first, grads, strict=True)]
        second = [BETA2 * v + (1 - BETA2) * g * g for v, g in zip(second, grads, strict=True)]
        moments = zip(params, first, second, strict=True)
        params = [p - size * m / (jnp.sqrt(v) * root + EPSILON) for p, m, v in moments]
        return params, (number, first, second), loss

    def zeros() -> list[Any]:
        return [jnp.zeros_like(array) for array in params]

    name = optimizer_of(case)
    slots: Any = {"momentum": zeros, "sgd": list, "adam": lambda: (jnp.zeros(()), zeros(), zeros())}[name]()
    return {"momentum": with_momentum, "sgd": sgd, "adam": adam}[name], (params, slots)


def jax_jit(case: dict[str, Any]) -> Work:
    """JAX: the whole step in one jit, parameters and the optimizer's state donated."""
    start_jax()
    import jax
    import jax.numpy as jnp

    xs, ys = data(case)
    x, y = jnp.asarray(xs), jnp.asarray(ys)
    update, (params, slots) = make_update(case)
    compiled = jax.jit(update, donate_argnums=(0, 1))
    state: list[Any] = [params, slots]

    def step() -> float:
        state[0], state[1], loss = compiled(state[0], state[1], x, y)
        return float(loss)

    return step
