"""The data and trainers of the tests of silence."""

import numpy as np

import gradring as gr

RNG = np.random.default_rng(3)
X = RNG.standard_normal((60, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 60)


def model():
    return gr.nn.Sequential(gr.nn.Linear(4, 5), gr.nn.ReLU(), gr.nn.Linear(5, 3))


def trainer(optimizer=None, **options):
    return gr.Trainer(model(), optimizer=optimizer or gr.optim.SGD(0.1), **options)
