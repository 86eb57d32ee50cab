"""Embedding as a layer: against PyTorch, ids that are no rows, and integers that stay integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradring as gr
from gradring.graph import check, train_graph
from gradring.ir import Input, Value

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


class Lookup(gr.nn.Layer):
    """A user's own layer over the op: it reads the ids in the shape ``seen`` of the batch, and names no integers."""

    def __init__(self, count: int, features: int, seen: str = "as it is") -> None:
        self.count, self.features, self.seen = count, features, seen

    def parameter_specs(self) -> dict[str, gr.nn.ParameterSpec]:
        shape = (self.count, self.features)
        return {"rows": gr.nn.ParameterSpec(shape, lambda rng, shape: rng.standard_normal(shape))}

    def trace(self, tracer: Any, x: str) -> str:
        samples, places = tracer.shape(x)[0], int(np.prod(tracer.shape(x)[1:]))
        ids, options = x, {}
        if self.seen == "flat":
            ids = tracer.view(x, (samples * places,))
        if self.seen == "checked":  # as layers had to be written before the builder added the check
            options = {"also": {"fault": Value("fault", (1,), dtype="int64")}, "integers": ("ids",)}
        table = tracer.parameter("rows", (self.count, self.features))
        y = tracer.node("embedding", {"ids": ids, "table": table}, (*tracer.shape(ids), self.features), **options)
        if self.seen == "checked":
            tracer.check("check_ids", {"ids": ids, "fault": tracer.graph.nodes[-2].outputs["fault"]})
        return str(tracer.view(y, (samples, places * self.features)))


@pytest.mark.parametrize("seen", ["as it is", "flat", "checked"])
@pytest.mark.parametrize("row", [(5,), (3, 2), (1,)], ids=str)
def test_a_layer_of_ones_own_over_the_op_checks_its_ids(seen: str, row: tuple[int, ...]) -> None:
    rng, places = np.random.default_rng(7), int(np.prod(row))
    x, y = rng.integers(0, 11, (41, *row)), rng.integers(0, 3, 41)
    own = gr.nn.Sequential(Lookup(11, 4, seen), gr.nn.Linear(4 * places, 3)).init(3)
    ours = gr.nn.Sequential(gr.nn.Embedding(11, 4), gr.nn.Flatten(), gr.nn.Linear(4 * places, 3)).init(3)
    ours.params["0.weight"] = own.params["0.rows"]
    ours.params["2.weight"], ours.params["2.bias"] = own.params["1.weight"], own.params["1.bias"]
    trainer, other = (gr.Trainer(model, optimizer=gr.optim.SGD(0.5)) for model in (own, ours))
    for _ in range(3):
        assert trainer.step(x, y) == other.step(x, y)
    assert np.array_equal(trainer.predict(x), other.predict(x))
    assert [i.op for i in trainer.plan().instructions] == [i.op for i in other.plan().instructions]

    for sample, bad in ((40, 11), (17, -1), (0, -(2**62))):
        place = int(rng.integers(places))
        wrong = x.copy()
        wrong[(sample, *np.unravel_index(place, row))] = bad
        named = ", ".join(map(str, np.unravel_index(place, row))) + ("," if len(row) == 1 else "")
        at = rf"\(?sample {sample}\)?: the id at place \({named}\) is {bad}: must be at least 0 and below 11"
        for call in (
            lambda wrong=wrong: trainer.step(wrong, y),
            lambda wrong=wrong: trainer.evaluate((wrong, y), batch_size=16),
            lambda wrong=wrong: trainer.predict(wrong, batch_size=16),
            lambda wrong=wrong: trainer.fit(gr.Loader((wrong, y), batch_size=16), verbose=False),
            lambda wrong=wrong: own(wrong),
        ):
            before = {name: array.copy() for name, array in own.params.items()}
            with pytest.raises(ValueError, match=rf"0\.Lookup.*{at}"):
                call()
            if "fit" not in call.__code__.co_names:  # fit has trained on the batches before
                assert all(np.array_equal(own.params[name], array) for name, array in before.items())


def test_a_layer_of_ones_own_over_the_op_names_floats() -> None:
    x = np.zeros((4, 3))
    with pytest.raises(TypeError, match=r"layer 0, Lookup\(\) reads integer ids, but the input gives float32: give it"):
        gr.nn.Sequential(Lookup(11, 4))(x)
    with pytest.raises(TypeError, match=r"layer 1, Lookup\(\) reads integer ids, but layer 0, ReLU\(\) gives float32: make it"):
        gr.nn.Sequential(gr.nn.ReLU(), Lookup(11, 4))(x)


def test_ids_that_belong_to_no_sample_are_refused() -> None:
    class Cut(Lookup):
        def trace(self, tracer: Any, x: str) -> str:
            ids = tracer.node("cast", {"x": tracer.view(x, (7,))}, (7,), {"dtype": "int64"}, dtype="int64")
            table = tracer.parameter("rows", (self.count, self.features))
            tracer.node("embedding", {"ids": ids, "table": table}, (7, self.features))
            return x

    with pytest.raises(ValueError, match="expected as many ids per sample, got 7 ids for 3 samples"):
        gr.nn.Sequential(Cut(11, 4))(np.zeros((3, 3)))


def test_the_summary_counts_ids_too() -> None:
    text = str(model().summary((16, 5)))
    assert "0: Embedding(20, 8)" in text
    assert "(16, 5, 8)" in text
