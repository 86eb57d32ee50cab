"""Data parallelism in JAX: each rank differentiates on its own rows, gradring averages the gradients.

pip install jax
gradring run -n 2 examples/allreduce_jax.py          # or alone, as a world of one
"""

import jax
import jax.numpy as jnp

import gradring as gr
import gradring.jax

comm = gradring.jax.communicator()
train, test = gr.datasets.digits()
first, second = jax.random.split(jax.random.key(0))
params = {"w": jax.random.normal(first, (64, 64)) / 8, "v": jax.random.normal(second, (64, 10)) / 8}


def loss(params, x, y):
    logits = jnp.tanh(x @ params["w"]) @ params["v"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


gradient = jax.jit(jax.grad(loss))
loader = gr.Loader(train, batch_size=64, shuffle=True, drop_last=True, rank=comm.rank, world_size=comm.size)
for _ in range(40):
    for x, y in loader:
        grads = gradring.jax.all_reduce(gradient(params, x, y), "mean")
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, grads)

loader.close()
right = (jnp.tanh(test.x @ params["w"]) @ params["v"]).argmax(axis=1) == test.y
if comm.rank == 0:
    print(f"{comm.size} ranks, test accuracy {right.mean():.1%}")
comm.close()
