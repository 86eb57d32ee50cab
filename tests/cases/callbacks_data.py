"""The data and trainers of the tests of callbacks."""

import numpy as np

import gradring as gr

RNG = np.random.default_rng(4)
X = RNG.standard_normal((80, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 80)
TEST = (X[:20], RNG.integers(0, 3, 20))
TRAIN = (X[20:], Y[20:])


def trainer():
    return gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 16), gr.nn.Tanh(), gr.nn.Linear(16, 3)).init(1),
                      optimizer=gr.optim.AdamW(2e-2))  # fmt: skip


def stop(**options):
    return gr.callbacks.EarlyStop(patience=3, **options)


def best_epoch(history):
    return int(np.argmin(history.metrics["val_loss"]))
