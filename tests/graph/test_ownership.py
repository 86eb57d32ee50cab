"""Forward products in two parts, so that lanes keep to their own rows of the weights."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gradring import nn, optim
from gradring.session import Session


def session_for(model: nn.Layer, threads: int, dtype: str = "float32") -> Session:
    model.init(3, dtype)
    return Session(model, optimizer=optim.SGD(0.05, momentum=0.9), threads=threads, dtype=dtype)


def trained(sizes: tuple[int, ...], batch: int, threads: int, dtype: str) -> tuple[list[float], dict[str, np.ndarray]]:
    layers: list[nn.Layer] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU()]
    session = session_for(nn.Sequential(*layers[:-1]), threads, dtype)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, sizes[0])).astype(dtype)
    y = rng.integers(0, sizes[-1], batch)
    session.step(x, y)
    session._native.set_program_lanes("train", batch, threads)
    losses = [session.step(x, y) for _ in range(5)]
    return losses, {name: array.copy() for name, array in session.params.items()}


def in_parts(model: nn.Layer, shape: tuple[int, ...]) -> list[bool]:
    session = session_for(model, 1)
    rng = np.random.default_rng(0)
    session.step(rng.standard_normal(shape).astype(np.float32), rng.integers(0, 4, shape[0]))
    plan = session.plan()
    return ["parts" in i.operands for i in plan.instructions if i.op == "linear"]


def test_large_products_of_trained_weights_are_in_parts():
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 40), nn.ReLU(), nn.Linear(40, 4))
    assert in_parts(model, (64, 784)) == [True, True, False]
    # The output to exchange is as large as the weight.
    assert in_parts(model, (512, 784)) == [False, False, False]


def test_products_with_more_than_relu_behind_them_are_not():
    model = nn.Sequential(nn.Linear(784, 256), nn.GELU(), nn.Linear(256, 4))
    assert in_parts(model, (64, 784)) == [False, False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("sizes", "batch"), [((784, 128, 10), 64), ((1500, 96, 33, 10), 33), ((131, 50, 7), 16)])
def test_any_number_of_threads_gives_the_same_bits(sizes, batch, dtype):
    losses, params = trained(sizes, batch, 1, dtype)
    assert losses[-1] < losses[0]
    for threads in (2, 3, 5):
        other_losses, other = trained(sizes, batch, threads, dtype)
        assert other_losses == losses
        for name, array in params.items():
            np.testing.assert_array_equal(other[name], array)


def test_the_loss_is_that_of_whole_products():
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    session = session_for(model, 2)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 784)).astype(np.float32), rng.integers(0, 10, 32)
    whole = session.evaluate((x, y))["loss"]
    assert session.step(x, y) == pytest.approx(whole, rel=1e-5)
