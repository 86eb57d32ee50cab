"""Gradients of whole models, against finite differences of a NumPy reference in float64."""

from __future__ import annotations

import numpy as np
import pytest

from gradring import nn, optim
from gradring.session import Session
from graph import reference

ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)


def square() -> nn.Function:
    return nn.Function(lambda x: x * x, lambda dy, x, y: 2 * x * dy)


def cases():
    for activation in ACTIVATIONS:
        yield f"{activation.__name__}", (9,), nn.Sequential(nn.Linear(9, 17), activation(), nn.Linear(17, 4))
    yield "exact gelu", (9,), nn.Sequential(nn.Linear(9, 17), nn.GELU("none"), nn.Linear(17, 4), nn.GELU("none"))
    shared = nn.Linear(9, 9)
    yield "one layer", (9,), nn.Linear(9, 4)
    yield "no bias", (9,), nn.Sequential(nn.Linear(9, 5, bias=False), nn.GELU(), nn.Linear(5, 4, bias=False))
    yield "activation first", (9,), nn.Sequential(nn.Tanh(), nn.Linear(9, 4))
    yield "activation last", (9,), nn.Sequential(nn.Linear(9, 4), nn.SiLU())
    yield "two activations", (9,), nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.GELU(), nn.Linear(8, 4))
    yield "linear on linear", (9,), nn.Sequential(nn.Linear(9, 8), nn.Linear(8, 33), nn.Linear(33, 4))
    yield "residual", (9,), nn.Sequential(nn.Linear(9, 8), nn.Residual(nn.Linear(8, 8), nn.SiLU()), nn.Linear(8, 4))
    yield (
        "residual of residual",
        (9,),
        nn.Sequential(
            nn.Residual(nn.Residual(nn.Linear(9, 9)), nn.Tanh(), nn.Linear(9, 9)), nn.GELU(), nn.Linear(9, 4)
        ),
    )
    yield (
        "residual on activation",
        (9,),
        nn.Sequential(
            nn.Linear(9, 8), nn.GELU(), nn.Residual(nn.GELU()), nn.Residual(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 4)
        ),
    )
    yield "flatten", (3, 3), nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    yield "flatten inside", (3, 3), nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Flatten(), nn.Linear(15, 4))
    yield "flatten after linear", (3, 3), nn.Sequential(nn.Linear(3, 5), nn.Flatten(), nn.ReLU(), nn.Linear(15, 4))
    yield "flatten last", (1, 9), nn.Sequential(nn.Linear(9, 4), nn.Flatten())
    yield "function", (9,), nn.Sequential(nn.Linear(9, 6), square(), nn.Linear(6, 4))
    yield (
        "function in residual",
        (9,),
        nn.Sequential(nn.Linear(9, 6), nn.Residual(square()), nn.Tanh(), nn.Linear(6, 4)),
    )
    yield "shared inside residual", (9,), nn.Sequential(nn.Residual(shared, nn.Tanh()), nn.Linear(9, 4))


CASES = list(cases())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "binary_cross_entropy"])
@pytest.mark.parametrize(("row", "model"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_gradients(row, model, loss, fused, monkeypatch):
    if not fused:
        monkeypatch.setattr("gradring.graph.passes.fuse_activations", lambda graph, output, training: graph)
        monkeypatch.setattr("gradring.graph.passes.fuse_backward", lambda graph: graph)
    rng = np.random.default_rng()
    model.init(int(rng.integers(1000)), "float64")
    rows = 7
    x = rng.normal(size=(rows, *row))
    y = rng.integers(0, 4, rows) if loss == "cross_entropy" else rng.random((rows, 4))
    session = Session(model, loss=loss, optimizer=optim.SGD(0.0), dtype="float64")
    grads = session.grads
    got = session.step(x, y)

    def truth() -> float:
        return reference.loss(loss, reference.forward(model, session.params, x), y)

    np.testing.assert_allclose(got, truth(), rtol=1e-12)
    for name, grad in grads.items():
        picks = rng.integers(0, grad.size, min(grad.size, 12))
        expected = reference.slopes(truth, session.params[name], picks)
        np.testing.assert_allclose(grad.reshape(-1)[picks], expected, rtol=1e-6, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(session.predict(x), reference.forward(model, session.params, x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(session.evaluate((x, y))["loss"], truth(), rtol=1e-12)


def test_the_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng()
    x = rng.normal(size=(257, 65)).astype(np.float32)
    y = rng.integers(0, 7, 257)
    results = []
    for threads in (1, 2, 3):
        model = nn.Sequential(
            nn.Linear(65, 129),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Residual(nn.Linear(129, 129), nn.Tanh()),
            nn.Linear(129, 7),
        )
        session = Session(model, optimizer=optim.AdamW(1e-2), threads=threads, seed=4, clip_norm=0.5)
        for epoch in range(3):
            feed = {"batch_size": 50, "shuffle": True, "seed": 1, "epoch": epoch}
            result = session.run((x, y), **feed)
            for rows in (50, 7):
                session._native.set_program_lanes("train", rows, threads)
        results.append((result.loss, b"".join(p.tobytes() for p in session.params.values())))
    assert results[0] == results[1] == results[2]
