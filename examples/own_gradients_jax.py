"""Gradients of your own, from JAX: a compiled function differentiates, gradring updates.

JAX's arrays cannot be changed, so the trainer copies them once and hands its own NumPy arrays to the function.

    pip install jax
    python examples/own_gradients_jax.py
"""

import jax
import jax.numpy as jnp

import gradring as gr

train, test = gr.datasets.digits()
first, second = jax.random.split(jax.random.key(0))
params = {
    "hidden": jax.random.normal(first, (64, 64)) * 0.1,
    "output": jax.random.normal(second, (64, 10)) * 0.1,
}


def logits(params, x):
    return jnp.tanh(x @ params["hidden"]) @ params["output"]


@jax.jit
def loss_and_grads(params, x, y):
    def loss(params):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], axis=1).mean()

    return jax.value_and_grad(loss)(params)


def step(params, batch):
    """The loss, its gradients by name, and the number of samples they are the mean of."""
    x, y = batch
    loss, grads = loss_and_grads(params, x, y)
    return loss, grads, len(y)


trainer = gr.Trainer(step=step, params=params, optimizer=gr.optim.AdamW(3e-3))
history = trainer.fit(gr.Loader(train, batch_size=64, shuffle=True), epochs=30, validate=test)

accuracy = (logits(trainer.params, test.x).argmax(axis=1) == test.y).mean()
print(f"loss {history.last['loss']:.3f}, validation loss {history.last['val_loss']:.3f}, test accuracy {accuracy:.1%}")
