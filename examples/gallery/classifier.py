"""A softmax regression in NumPy, with its gradient written by hand: the model that several programs train."""

from __future__ import annotations

import numpy as np

import gradring as gr

RATE = 0.25


def data(samples: int, features: int = 64, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Random samples of classes that a linear model can tell apart."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, features), np.float32)
    return x, (x @ rng.standard_normal((features, classes))).argmax(axis=1)


def gradient(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The sum, not the mean, of the gradients of all samples."""
    logits = x @ w
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return x.T @ p


def again(trainer: gr.Trainer, x: np.ndarray, y: np.ndarray, batch: int) -> np.ndarray:
    """The weights after an epoch that begins with weights of zero."""
    trainer.params["0.weight"] = np.zeros(trainer.params["0.weight"].shape)
    trainer.fit(gr.Loader((x, y), batch_size=batch), epochs=1, verbose=0)
    return np.array(trainer.params["0.weight"])


def model(features: int = 64, classes: int = 10) -> gr.nn.Sequential:
    """The same model as layers, with weights of zero."""
    made = gr.nn.Sequential(gr.nn.Linear(features, classes, bias=False))
    made.init(0)
    made.params["0.weight"] = np.zeros((features, classes), np.float32)
    return made
