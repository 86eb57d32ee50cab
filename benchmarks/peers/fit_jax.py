"""An epoch over Fashion-MNIST in JAX: one jit per batch, or the whole epoch in one scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from step_jax import make_update, start_jax

from gradring.bench.contender import Work
from gradring.bench.fit_contenders import data


def jax_jit(case: dict[str, Any]) -> Work:
    """JAX: gather and step in one jit per batch, parameters donated."""
    import jax
    import jax.numpy as jnp

    start_jax()
    xs, ys = data()
    x, y = jnp.asarray(xs), jnp.asarray(ys)
    update, (params, momentum) = make_update(case)

    def turn(params: Any, momentum: Any, total: Any, x: Any, y: Any, index: Any) -> Any:
        params, momentum, loss = update(params, momentum, x[index], y[index])
        return params, momentum, total + loss

    compiled = jax.jit(turn, donate_argnums=(0, 1, 2))
    state: list[Any] = [params, momentum]
    rng = np.random.default_rng(0)
    batch = case["batch"]

    def epoch() -> float:
        order = rng.permutation(len(xs)).astype(np.int32)
        total = jnp.zeros(())
        for begin in range(0, len(xs), batch):
            state[0], state[1], total = compiled(state[0], state[1], total, x, y, order[begin : begin + batch])
        return float(total)

    return epoch


def jax_scan_epoch(case: dict[str, Any]) -> Work:
    """JAX: the whole epoch in one jit, a scan over the rows of a permutation, state donated."""
    import jax
    import jax.numpy as jnp

    start_jax()
    x, y = (jnp.asarray(array) for array in data())
    batch, (update, state) = case["batch"], make_update(case)
    whole = len(x) - len(x) % batch

    def run(state: Any, x: Any, y: Any, order: Any) -> Any:
        def turn(state: Any, index: Any) -> Any:
            *state, loss = update(*state, x[index], y[index])
            return tuple(state), loss

        state, losses = jax.lax.scan(turn, state, order[:whole].reshape(-1, batch))
        if whole == len(x):
            return state, jnp.sum(losses)
        state, loss = turn(state, order[whole:])
        return state, jnp.sum(losses) + loss

    compiled = jax.jit(run, donate_argnums=0)
    rng = np.random.default_rng(0)
    holder = [state]

    def epoch() -> float:
        order = rng.permutation(len(x)).astype(np.int32)
        holder[0], total = compiled(holder[0], x, y, order)
        return float(total)

    return epoch
