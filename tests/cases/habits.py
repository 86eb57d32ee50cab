"""The data and trainers of the tests of habits."""

import numpy as np

import gradring as gr

RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((48, 4)).astype(np.float32), RNG.integers(0, 3, 48)


def trainer(loss="cross_entropy", outputs=3, **options):
    model = gr.nn.Sequential(gr.nn.Linear(4, outputs)).init(1)
    return gr.Trainer(model, loss=loss, optimizer=gr.optim.SGD(0.1), **options)


def own():
    return gr.Trainer(
        step=lambda p, b: (0.0, {"w": np.zeros(1)}), params={"w": np.zeros(1)}, optimizer=gr.optim.SGD(0.1)
    )
