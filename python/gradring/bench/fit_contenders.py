"""An epoch over Fashion-MNIST, per library: shuffled batches of 64, 784-256-128-10, SGD with momentum.

Peers run their own best loop: data preloaded in their tensors, one random permutation an epoch, batches sliced by
hand (no loader), loss read once at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .contender import Work
from .step_contenders import our_trainer, torch_parts


def data() -> tuple[np.ndarray, np.ndarray]:
    """Training images as float32 rows in [0, 1], and labels."""
    import gradring as gr

    (x, y), _ = gr.datasets.fashion_mnist()
    return np.ascontiguousarray(x.reshape(len(x), -1), np.float32), y.astype(np.int64)


def ours(case: dict[str, Any]) -> Work:
    """gradring: ``trainer.fit`` for one epoch."""
    import gradring as gr

    trainer = our_trainer(case)
    loader = gr.Loader(data(), case["batch"], shuffle=True, seed=0)
    return lambda: trainer.fit(loader, epochs=1)


def torch_eager(case: dict[str, Any]) -> Work:
    """PyTorch, eager."""
    return _torch(case)


def torch_compiled(case: dict[str, Any]) -> Work:
    """PyTorch, forward and backward through torch.compile."""
    return _torch(case, dynamic=False)


def _torch(case: dict[str, Any], **compiling: Any) -> Work:
    import torch

    forward, optimizer = torch_parts(case, **compiling)
    xs, ys = data()
    x, y = torch.from_numpy(xs), torch.from_numpy(ys)
    batch = case["batch"]

    def epoch() -> float:
        order = torch.randperm(len(x))
        total = torch.zeros(())
        for begin in range(0, len(x), batch):
            index = order[begin : begin + batch]
            optimizer.zero_grad(set_to_none=True)
            loss = forward(x[index], y[index])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total)

    return epoch


def jax_jit(case: dict[str, Any]) -> Work:
    """JAX: gather and step in one jit per batch, parameters donated."""
    import jax
    import jax.numpy as jnp

    from .jax_step import make_update, start_jax

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
