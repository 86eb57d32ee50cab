"""The peers of the races compute the same training as each other: nobody wins by doing less."""

import inspect

import numpy as np
import pytest

from gradring.bench import contender, fit, gemm, loader, step
from gradring.bench.harness import agree

CASE = {"sizes": (13, 7, 6, 5), "batch": 9}
# The compiled ones take tens of seconds to start; every race checks them itself, through Case.agree.
PEERS = {name: factory for name, factory in step.PEERS.items() if "compile" not in name}
FACTORIES = {
    *step.PEERS.values(),
    *fit.PEERS.values(),
    *(racer.factory for racer in gemm.contenders()),
    *(f"gradring.bench.{factory}" for race in loader.RACES for factory in race.contenders.values()),
}


def losses(factory, calls):
    work = contender.load(factory)(CASE)
    return [work() for _ in range(calls)]


@pytest.mark.parametrize("factory", sorted(FACTORIES))
def test_every_contender_exists_and_takes_its_options(factory):
    bound = inspect.signature(contender.load(*factory.split())).bind({})
    assert bound.arguments["case"] == {}


@pytest.mark.parity
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_takes_the_same_steps(name, monkeypatch):
    pytest.importorskip(name.split()[0].split(".")[0])
    monkeypatch.setenv("GRADRING_BENCH_THREADS", "2")
    monkeypatch.setattr("gradring.bench.step_contenders.LEARNING_RATE", 0.5)
    monkeypatch.setattr("gradring.bench.step_by_hand.LEARNING_RATE", 0.5)
    monkeypatch.setattr("gradring.bench.jax_step.LEARNING_RATE", 0.5)
    found, expected = losses(PEERS[name], 6), losses(PEERS["numpy by hand"], 6)
    assert expected[5] < 0.9 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_contender_that_computes_something_else_disagrees():
    assert agree([1.0, 0.5], [1.0, 0.500001], 1e-5)
    assert not agree([1.0, 0.51], [1.0, 0.5], 1e-5)
    assert not agree([float("nan")], [1.0], 1e-5)
