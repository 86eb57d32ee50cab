"""The MLP training step, per library: forward, softmax cross-entropy, backward and update, at its best.

Each function takes a case {"sizes": [784, 128, 10], "batch": 64} and returns one step as a callable. The case's "optimizer" is
"momentum" (SGD with a momentum, which may be 0), "sgd" (without momentum) or "adam"; its "dtype" is that of the matrices
that products read, "float32", "bfloat16" or "float16", and its "products" those of our trainer. Peers keep their data in
their own tensors, made once; ours is given the same NumPy arrays on every call.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np

from .contender import Work

LEARNING_RATE = 1e-3
MOMENTUM = 0.9
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's


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


def optimizer_of(case: dict[str, Any]) -> str:
    """The name of the case's optimizer."""
    return str(case.get("optimizer", "momentum"))


def our_trainer(case: dict[str, Any]) -> Any:
    """A gr.Trainer of the network, with the initial weights of all."""
    import gradring as gr

    layers: list[Any] = []
    for i, o in pairwise(case["sizes"]):
        layers += [gr.nn.Linear(i, o), gr.nn.ReLU()]
    model = gr.nn.Sequential(*layers[:-1])
    model.init(seed=0)
    name = optimizer_of(case)
    if name == "adam":
        optimizer: Any = gr.optim.Adam(LEARNING_RATE, (BETA1, BETA2), EPSILON)
    else:
        optimizer = gr.optim.SGD(LEARNING_RATE, momentum=MOMENTUM if name == "momentum" else 0.0)
    how = {"dtype": case.get("dtype", "float32"), "products": case.get("products")}
    trainer = gr.Trainer(model, loss="cross_entropy", optimizer=optimizer, **how)
    for index, (w, b) in enumerate(weights(case)):
        trainer.params[f"{2 * index}.weight"][...] = w
        trainer.params[f"{2 * index}.bias"][...] = b
    return trainer


def ours(case: dict[str, Any]) -> Work:
    """gradring: ``trainer.step(x, y)`` from Python."""
    x, y = data(case)
    step = our_trainer(case).step
    return lambda: step(x, y)
