"""The update fused into the products: read as a graph, and run beside the separate one."""

from __future__ import annotations

import numpy as np
import pytest

from gradring import losses, nn, optim
from gradring.graph import train_graph
from gradring.graph.fuse_update import fuse_updates
from gradring.session import Session

OPTIMIZERS = {
    "sgd": optim.SGD(0.05),
    "nesterov": optim.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": optim.Adam(1e-2),
    "adamw": optim.AdamW(1e-2, weight_decay=0.1),
}
MLP = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 3))
PARAMETERS = {"0.weight", "0.bias", "2.weight", "2.bias"}


def fused_graph(**options):
    return train_graph(
        MLP, (5, 8), losses.CrossEntropy(), optimizer=OPTIMIZERS["nesterov"], fuse_update=True, **options
    )


def test_products_with_updates_come_after_all_that_reads_the_old_weights():
    nodes = fused_graph().nodes
    first = next(i for i, node in enumerate(nodes) if node.op == "linear_dw_sgd")
    for node in nodes[first:]:
        assert node.op in ("linear_dw_sgd", "sgd")
    assert {node.inputs["param"] for node in nodes[first:]} == PARAMETERS


@pytest.mark.parametrize("options", [{"clip_norm": 1.0}, {"accumulate": True}])
def test_clipping_and_accumulation_keep_the_separate_update(options):
    nodes = fused_graph(**options).nodes
    assert nodes[-1].op == "sgd"
    assert all(node.op != "linear_dw_sgd" for node in nodes)


def test_a_graph_without_an_optimizer_is_refused():
    graph = train_graph(MLP, (5, 8), losses.CrossEntropy(), optimizer=OPTIMIZERS["sgd"])
    with pytest.raises(ValueError, match="must end with an optimizer"):
        fuse_updates(graph.with_nodes(graph.nodes[:-1]))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_bits_are_those_of_the_separate_update(optimizer, dtype, threads):
    results = []
    for fuse_update in (None, False):
        model = nn.Sequential(
            nn.Linear(19, 33), nn.GELU(), nn.Linear(33, 33), nn.Tanh(), nn.Residual(nn.Linear(33, 33)), nn.Linear(33, 7)
        )
        model.init(seed=3)
        session = Session(model, optimizer=OPTIMIZERS[optimizer], dtype=dtype, threads=threads, fuse_update=fuse_update)
        rng = np.random.default_rng(0)
        losses = [session.step(rng.standard_normal((29, 19)).astype(dtype), rng.integers(0, 7, 29)) for _ in range(8)]
        results.append((losses, {k: v.copy() for k, v in {**session.params, **session.state}.items()}))
    assert results[0][0] == results[1][0]
    for name, array in results[0][1].items():
        np.testing.assert_array_equal(array, results[1][1][name])


def test_more_rows_than_one_block_of_steps_holds():
    results = []
    for fuse_update in (None, False):
        model = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 3))
        model.init(seed=1)
        session = Session(model, optimizer=OPTIMIZERS["adam"], fuse_update=fuse_update)
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((2500, 40), dtype=np.float32), rng.integers(0, 3, 2500)
        for _ in range(3):
            session.step(x, y)
        results.append(session.params["0.weight"].copy())
    np.testing.assert_array_equal(*results)


def test_gradients_that_are_asked_for_are_there():
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    session = Session(model, optimizer=OPTIMIZERS["sgd"])
    x, y = np.ones((5, 8), np.float32), np.zeros(5, np.int64)
    session.step(x, y)
    gradients = session.grads
    session.step(x, y)
    assert any(np.abs(gradient).max() > 0 for gradient in gradients.values())
