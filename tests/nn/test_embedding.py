"""Embedding as a layer: against PyTorch, ids that are no rows, and integers that stay integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradring as gr
from gradring.graph import check, train_graph
from gradring.ir import Input

Array = np.ndarray[Any, Any]


def model() -> gr.nn.Sequential:
    return gr.nn.Sequential(gr.nn.Embedding(20, 8), gr.nn.Flatten(), gr.nn.Linear(40, 3))


def data(rows: int = 90) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 20, (rows, 5))
    return x, x[:, 0] % 3


@pytest.mark.parity
def test_trains_as_pytorch_does() -> None:
    torch = pytest.importorskip("torch")
    x, y = data()
    ours = model()
    trainer = gr.Trainer(ours, optimizer=gr.optim.Adam(0.05), dtype="float64", seed=1)
    theirs = torch.nn.Sequential(
        torch.nn.Embedding(20, 8, dtype=torch.float64),
        torch.nn.Flatten(),
        torch.nn.Linear(40, 3, dtype=torch.float64),
    )
    with torch.no_grad():
        theirs[0].weight.copy_(torch.from_numpy(ours.params["0.weight"].copy()))
        theirs[2].weight.copy_(torch.from_numpy(ours.params["2.weight"].T.copy()))
        theirs[2].bias.copy_(torch.from_numpy(ours.params["2.bias"].copy()))
    optimizer = torch.optim.Adam(theirs.parameters(), 0.05)
    for step in range(12):
        rows = slice(step % 3 * 30, step % 3 * 30 + 30)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
        loss.backward()
        optimizer.step()
        assert trainer.step(x[rows], y[rows]) == pytest.approx(float(loss.detach()), rel=1e-9)
    with torch.no_grad():
        assert np.allclose(trainer.predict(x), theirs(torch.from_numpy(x)).numpy(), rtol=1e-8, atol=1e-9)


def test_gradients_agree_with_finite_differences() -> None:
    x, _ = data(rows=7)
    assert gr.check_grad(model(), x) < 1e-6


def test_the_graph_of_a_step_is_legal_in_every_form() -> None:
    for options in ({}, {"clip_norm": 1.0}, {"accumulate": True}, {"fuse_update": True, "check_finite": True}):
        inputs = {"x": Input((16, 5), integers=True)}
        check(
            train_graph(model(), inputs, gr.losses.CrossEntropy(), optimizer=gr.optim.SGD(0.1, momentum=0.9), **options)
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint32])
def test_integers_of_every_kind_and_source(dtype: Any) -> None:
    x, y = data()
    losses = []
    for source in ((x, y), (x.astype(dtype), y), gr.Loader((x.astype(dtype), y), batch_size=32)):
        trainer = gr.Trainer(model(), optimizer=gr.optim.SGD(0.5), seed=1)
        if not isinstance(source, gr.Loader):
            source = gr.Loader(source, batch_size=32, shuffle=False)
        losses.append(trainer.fit(source, epochs=3, verbose=False).metrics["loss"])
    assert losses[0] == losses[1] == losses[2]


def test_an_id_stays_an_integer() -> None:
    table = gr.nn.Embedding(2**24 + 2, 1).init()
    table.params["weight"] = np.arange(2**24 + 2)[:, np.newaxis] % 7
    assert table(np.array([[2**24 + 1]])).item() == (2**24 + 1) % 7  # float32 has no such number


def test_ids_that_are_no_rows_end_a_step_and_are_named() -> None:
    x, y = data()
    trainer = gr.Trainer(model(), optimizer=gr.optim.SGD(0.5), seed=1)
    trainer.step(x, y)
    for bad in (20, -1, 2**40):
        wrong = x.copy()
        wrong[37, 3] = bad
        kept = {name: array.copy() for name, array in trainer.params.items()}
        at = rf"the id at place \(3,\) is {bad}: must be at least 0 and below 20"
        with pytest.raises(
            ValueError, match=rf"0\.Embedding\(20, 8\): batch 0, row 37 \(sample 37\): {at}.*no parameter"
        ):
            trainer.step(wrong, y)
        assert all(np.array_equal(trainer.params[name], array) for name, array in kept.items())
        with pytest.raises(ValueError, match=rf"batch 1, row 5 \(sample 37\): {at}"):
            trainer.evaluate((wrong, y), batch_size=32)
        with pytest.raises(ValueError, match=rf"sample 37: {at}"):
            trainer.predict(wrong, batch_size=16)
        with pytest.raises(ValueError, match=rf"row 5 \(sample 37\): {at}"):
            trainer.fit(gr.Loader((wrong, y), batch_size=32), epochs=1, verbose=False)


def test_the_right_embedding_is_named() -> None:
    class Two(gr.nn.Layer):
        def __init__(self) -> None:
            self.first, self.second = gr.nn.Embedding(20, 4), gr.nn.Embedding(10, 4)

        def children(self) -> dict[str, gr.nn.Layer]:
            return {"first": self.first, "second": self.second}

        def trace(self, tracer: Any, x: str) -> str:
            a, b = tracer.call("first", self.first, x), tracer.call("second", self.second, x)
            return str(tracer.node("add", {"a": a, "b": b}, tracer.shape(a)))

    two = Two().init()
    assert two(np.array([[9]])).shape == (1, 1, 4)
    with pytest.raises(ValueError, match=r"second\.Embedding\(10, 4\): sample 1: the id at place \(0,\) is 15"):
        two(np.array([[9], [15]]))


def test_misuse_is_named() -> None:
    x, y = data()
    trainer = gr.Trainer(model(), optimizer=gr.optim.SGD(0.5))
    with pytest.raises(
        TypeError, match=r"\[Embedding\] layer 0, Embedding\(20, 8\) reads integer ids, but the input gives"
    ):
        trainer.step(x.astype(np.float32), y)
    with pytest.raises(TypeError, match="reads integer ids, but the input gives float32: give it integers"):
        model()(x.astype(float))
    with pytest.raises(
        TypeError, match=r"\[Embedding\] layer 1, Embedding\(3, 2\) reads integer ids.*make it the first layer"
    ):
        gr.nn.Sequential(gr.nn.Linear(2, 2), gr.nn.Embedding(3, 2))(np.ones((1, 2), np.float32))


def test_the_summary_counts_ids_too() -> None:
    text = str(model().summary((16, 5)))
    assert "0: Embedding(20, 8)" in text
    assert "(16, 5, 8)" in text
