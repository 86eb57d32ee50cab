"""Epochs in JAX: one jit per batch, or the whole epoch in one scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from step_jax import make_update, start_jax

from gradring.bench.contender import Work
from gradring.bench.fit_contenders import Passes, data


def jax_jit(case: dict[str, Any]) -> Work:
    """JAX: gather and step in one jit per batch, parameters and the optimizer's state donated."""
    start_jax()
    import jax
    import jax.numpy as jnp

    xs, ys = data(case)
    x, y = jnp.asarray(xs), jnp.asarray(ys)
    update, (params, slots) = make_update(case)

    def turn(params: Any, slots: Any, total: Any, x: Any, y: Any, index: Any) -> Any:
        params, slots, loss = update(params, slots, x[index], y[index])
        return params, slots, total + loss

    compiled = jax.jit(turn, donate_argnums=(0, 1, 2))
    state: list[Any] = [params, slots]
    batch = case["batch"]

    def one(order: Any) -> float:
        total = jnp.zeros(())
        for begin in range(0, len(order), batch):
            state[0], state[1], total = compiled(state[0], state[1], total, x, y, order[begin : begin + batch])
        return float(total)

    return Passes(case, len(xs), one, _permutations(len(xs)), _in_order)


def jax_scan_epoch(case: dict[str, Any]) -> Work:
    """JAX: the whole epoch in one jit, a scan over the rows of a permutation, state donated."""
    start_jax()
    import jax
    import jax.numpy as jnp

    x, y = (jnp.asarray(array) for array in data(case))
    batch, (update, state) = case["batch"], make_update(case)

    def run(state: Any, x: Any, y: Any, order: Any) -> Any:
        def turn(state: Any, index: Any) -> Any:
            *state, loss = update(*state, x[index], y[index])
            return tuple(state), loss

        whole = len(order) - len(order) % batch
        state, losses = jax.lax.scan(turn, state, order[:whole].reshape(-1, batch))
        if whole == len(order):
            return state, jnp.sum(losses)
        state, loss = turn(state, order[whole:])
        return state, jnp.sum(losses) + loss

    compiled = jax.jit(run, donate_argnums=0)
    holder = [state]

    def one(order: Any) -> float:
        holder[0], total = compiled(holder[0], x, y, order)
        return float(total)

    return Passes(case, len(x), one, _permutations(len(x)), _in_order)


def _permutations(rows: int) -> Any:
    rng = np.random.default_rng(0)
    return lambda: rng.permutation(rows).astype(np.int32)


def _in_order(rows: int) -> Any:
    return np.arange(rows, dtype=np.int32)
