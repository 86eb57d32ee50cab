"""Functions of ranks that use JAX."""

import jax
import jax.numpy as jnp
import numpy as np

import gradring.jax as grj


def reduce():
    """Sums and means of arrays and trees; what becomes of inputs and results."""
    comm = grj.communicator()
    x = jnp.arange(1000, dtype=jnp.float32).reshape(10, 100) + comm.rank
    before = np.asarray(x).copy()
    summed = grj.all_reduce(x)
    assert isinstance(summed, jax.Array) and summed.shape == (10, 100)
    assert np.array_equal(np.asarray(x), before), "an input was changed"
    expected = 2 * np.arange(1000, dtype=np.float32).reshape(10, 100) + 1
    assert np.array_equal(np.asarray(summed), expected)
    later = [grj.all_reduce(x * i) for i in range(5)]
    assert np.array_equal(np.asarray(summed), expected), "a result was rewritten"
    assert np.array_equal(np.asarray(later[4]), 4 * expected)
    tree = grj.all_reduce({"w": jnp.ones((2, 3), jnp.bfloat16), "b": [jnp.float32(comm.rank), jnp.arange(3)]}, "max")
    assert tree["w"].dtype == jnp.bfloat16 and float(tree["b"][0]) == 1 and tree["b"][1].tolist() == [0, 1, 2]
    mean = grj.all_reduce(jnp.full(3, 4.0 * (comm.rank + 1)), "mean", weight=comm.rank + 1)
    assert mean.tolist() == [4.0] * 3
    # The result's memory is JAX's own, at the address that was reduced into: no copy was made.
    return summed.unsafe_buffer_pointer() % 64
