"""gradring's all_reduce for JAX arrays on the CPU.

>>> import jax.numpy as jnp, gradring.jax
>>> gradring.jax.all_reduce(jnp.ones(2))          # without a launcher: a world of one
Array([1., 1.], dtype=float32)
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from gradring import comm as agree
from gradring.comm import Communicator

__all__ = ["all_reduce", "communicator"]

_world: Communicator | None = None


def communicator(timeout: float = 300.0) -> Communicator:
    """This process's communicator. The first call makes it, and so does the first call after it was closed."""
    global _world
    if _world is None or _world._group.closed:
        _world = agree.init(timeout)
    return _world


def all_reduce(tree: Any, op: Any = "sum", *, comm: Communicator | None = None, weight: float | None = None) -> Any:
    """Reduce JAX arrays over all ranks: one array, or a tree of them (gradients); returns new ones.

    The inputs are read where they lie, on the CPU. A result is on its input's device, or, for a NumPy array, on the first CPU
    device. It has memory of its own, which JAX takes over without a copy, and to which gradring never writes again. Call it
    between jitted functions, not within one. `op`: 'sum', 'mean', 'max', 'min' or 'prod'; `weight` is this rank's weight, for a
    weighted 'mean'.
    """
    group = communicator() if comm is None else comm
    return jax.tree.map(lambda leaf: _reduced(group, leaf, op, weight), tree)


def _reduced(group: Communicator, leaf: Any, op: Any, weight: float | None) -> Any:
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError("[all_reduce] x is a tracer: call it outside of jit and grad, between their calls")
    if isinstance(leaf, jax.Array):
        device = next(iter(leaf.devices()))
        if len(leaf.devices()) != 1 or device.platform != "cpu":
            raise ValueError(f"[all_reduce] x is on {leaf.devices()}: must be on one CPU device")
    else:
        device = jax.local_devices(backend="cpu")[0]
    given = np.asarray(leaf)  # a read-only view of a JAX array on the CPU
    # Align the memory as JAX requires, because JAX copies memory with a smaller alignment.
    memory = np.empty(given.nbytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    out = memory[begin : begin + given.nbytes].view(given.dtype).reshape(given.shape)
    group.all_reduce(given, op, out=out, weight=weight)
    return jax.device_put(out, device, may_alias=True)
