"""Gradients of your own, in NumPy: logistic regression, its gradient written by hand.

python examples/own_gradients_numpy.py
"""

import numpy as np

import gradring as gr

train, test = gr.datasets.digits()
params = {"w": np.zeros((64, 10), np.float32), "b": np.zeros(10, np.float32)}


def probabilities(params, x):
    logits = x @ params["w"] + params["b"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def step(params, batch):
    """The loss, its gradients by name, and the number of samples they are the mean of."""
    x, y = batch
    p = probabilities(params, x)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    return loss, {"w": x.T @ p, "b": p.sum(axis=0)}, len(y)


trainer = gr.Trainer(step=step, params=params, optimizer=gr.optim.Adam(1e-2))
history = trainer.fit(gr.Loader(train, batch_size=64, shuffle=True), epochs=30, validate=test)

accuracy = (probabilities(params, test.x).argmax(axis=1) == test.y).mean()
print(f"loss {history.last['loss']:.3f}, validation loss {history.last['val_loss']:.3f}, test accuracy {accuracy:.1%}")
