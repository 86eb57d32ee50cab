"""One process splits each batch over several devices, and keeps a copy of the weights on each of them.

Usual: JAX with two host devices and a sharded batch (as ``torch.nn.DataParallel`` does over GPUs). gradring:
``replicas=2``; each replica is a team of threads, and the weights exist once.

pip install jax
python examples/gallery/11_several_devices.py [full]
"""

import os
from typing import Any

import numpy as np
from classifier import RATE, again, data, model
from compare import difference, report, size, timed

import gradring as gr

STEPS, BATCH = size(20, 200), size(128, 1024)


def in_jax(x: np.ndarray, y: np.ndarray) -> Any:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
    split, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())

    def loss(w: Any, xs: Any, ys: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(xs @ w), ys[:, None], 1).mean()

    step = jax.jit(lambda w, xs, ys: w - RATE * jax.grad(loss)(w, xs, ys), out_shardings=whole)

    def run() -> np.ndarray:
        w = jax.device_put(np.zeros((64, 10), np.float32), whole)
        for at in range(0, len(x), BATCH):
            w = step(w, jax.device_put(x[at : at + BATCH], split), jax.device_put(y[at : at + BATCH], split))
        return np.asarray(w)

    run()  # compiles
    return timed(run)


def main() -> None:
    x, y = data(STEPS * BATCH)
    usual_seconds, expected = in_jax(x, y.astype(np.int32))

    trainer = gr.Trainer(model(), optimizer=gr.optim.SGD(RATE), replicas=2)
    again(trainer, x, y, BATCH)  # the first epoch plans the step
    seconds, weights = timed(lambda: again(trainer, x, y, BATCH))
    report("JAX over two host devices", usual_seconds, seconds, difference(expected, weights), 1e-4)


if __name__ == "__main__":
    main()
