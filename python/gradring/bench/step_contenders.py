"""The MLP training step, per library: forward, softmax cross-entropy, backward, SGD with momentum, at its best.

Each function takes a case {"sizes": [784, 128, 10], "batch": 64} and returns one step as a callable. Peers keep
their data in their own tensors, made once; ours is given the same NumPy arrays on every call.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np

from .contender import Work

LEARNING_RATE = 1e-3
MOMENTUM = 0.9


def data(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and labels, the same for everyone."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case["batch"], case["sizes"][0]), dtype=np.float32)
    y = rng.integers(0, case["sizes"][-1], case["batch"])
    return x, y


def weights(case: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(in, out) matrices and biases, the same for everyone."""
    rng = np.random.default_rng(1)
    sizes = case["sizes"]
    return [
        (rng.standard_normal((i, o), dtype=np.float32) / np.float32(i**0.5), np.zeros(o, np.float32))
        for i, o in pairwise(sizes)
    ]


def threads() -> int:
    """How many threads the harness wants this contender to use."""
    return int(os.environ["GRADRING_BENCH_THREADS"])


def our_trainer(case: dict[str, Any]) -> Any:
    """A gr.Trainer of the network."""
    import gradring as gr

    layers: list[Any] = []
    for i, o in pairwise(case["sizes"]):
        layers += [gr.nn.Linear(i, o), gr.nn.ReLU()]
    model = gr.nn.Sequential(*layers[:-1])
    model.init(seed=0)
    return gr.Trainer(model, loss="cross_entropy", optimizer=gr.optim.SGD(LEARNING_RATE, momentum=MOMENTUM))


def ours(case: dict[str, Any]) -> Work:
    """gradring: ``trainer.step(x, y)`` from Python."""
    x, y = data(case)
    trainer = our_trainer(case)
    for index, (w, b) in enumerate(weights(case)):
        trainer.params[f"{2 * index}.weight"][...] = w
        trainer.params[f"{2 * index}.bias"][...] = b
    step = trainer.step
    return lambda: step(x, y)
