"""Random models beside a page of NumPy in float64; needs nothing installed."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from gradring import nn, optim
from gradring.parity import PlainTwin, compare
from gradring.session import Session

ACTIVATIONS = (nn.ReLU, nn.GELU, partial(nn.GELU, "none"), nn.SiLU, nn.Tanh, nn.Sigmoid)
OPTIMIZERS = (
    optim.SGD(0.1),
    optim.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    optim.Adam(1e-2, eps=1e-4),
    optim.AdamW(optim.schedule.linear(1e-2, 0.0, 3), eps=1e-4, weight_decay=0.1),
)


@st.composite
def models(draw):
    """A Sequential, and its numbers of inputs and outputs."""
    sizes = draw(st.lists(st.integers(1, 70), min_size=2, max_size=5))
    layers = []
    for inputs, outputs in pairwise(sizes):
        layers.append(nn.Linear(inputs, outputs, bias=draw(st.booleans())))
        if draw(st.integers(0, 3)):
            layers.append(draw(st.sampled_from(ACTIVATIONS))())
        if draw(st.integers(0, 3)) == 0:
            layers.append(nn.Residual(nn.Linear(outputs, outputs), draw(st.sampled_from(ACTIVATIONS))()))
    if len(layers) > 1 and not isinstance(layers[-1], nn.Linear) and draw(st.booleans()):
        layers.pop()
    return nn.Sequential(*layers), sizes[0], sizes[-1]


@settings(max_examples=60, deadline=None)
@given(
    model=models(),
    loss=st.sampled_from(("cross_entropy", "mse", "binary_cross_entropy")),
    optimizer=st.sampled_from(OPTIMIZERS),
    rows=st.lists(st.integers(1, 40), min_size=3, max_size=3),
    dtype=st.sampled_from(("float32", "float64")),
    clip_norm=st.sampled_from((None, 0.1)),
    accumulate=st.sampled_from((1, 1, 2)),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_random_models_train_as_plain_numpy_does(
    model, loss, optimizer, rows, dtype, clip_norm, accumulate, threads, seed
):
    layers, features, outputs = model
    # The cross entropies contain a sigmoid or a softmax, so models that end with one are refused, as is one class.
    assume(loss == "mse" or not repr(layers).endswith(("Sigmoid())", "Softmax())")))
    assume(loss != "cross_entropy" or outputs > 1)
    rng = np.random.default_rng(seed)
    options = {"loss": loss, "optimizer": optimizer, "clip_norm": clip_norm, "accumulate": accumulate}
    session = Session(layers.init(seed % 1000, dtype), dtype=dtype, threads=threads, seed=seed, **options)
    batches = []
    for count in rows:
        x = rng.standard_normal((count, features)).astype(dtype)
        y = rng.integers(0, outputs, count) if loss == "cross_entropy" else rng.random((count, outputs)).astype(dtype)
        batches.append((x, y))
    twin = PlainTwin(layers, session.params, dtype="float64", **options)
    for x, y in batches:
        twin.step(x, y)
    assume(twin.nearest_kink > 1e-6)  # else a rounding error may switch a ReLU
    event(f"{dtype}, {loss}")
    compare(session, batches, against="numpy").check()


class Twice(nn.Layer):
    """Uses one value twice, and a view of it."""

    def trace(self, tracer, x):
        rows, columns = tracer.shape(x)
        y = tracer.node("activation", {"x": x}, (rows, columns), {"activation": "tanh"})
        other = tracer.view(y, (rows, columns))
        return tracer.node("add", {"a": y, "b": other}, (rows, columns))


MODELS = {
    "layer_norm": (nn.Linear(7, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 4)),
    "rms_norm": (nn.RMSNorm(7), nn.Linear(7, 6), nn.RMSNorm(6), nn.Linear(6, 4)),
    # Without biases, whose gradients before a batch norm are zero but for rounding.
    "batch_norm": (
        nn.Linear(7, 6, bias=False),
        nn.BatchNorm1d(6),
        nn.Tanh(),
        nn.Linear(6, 4, bias=False),
        nn.BatchNorm1d(4),
    ),
    "residual norms": (nn.Linear(7, 6), nn.Residual(nn.LayerNorm(6), nn.Linear(6, 6), nn.SiLU()), nn.Linear(6, 4)),
    "one value twice": (nn.Linear(7, 4), Twice()),
    "flatten": (nn.Flatten(), nn.Linear(7, 4)),
}


def agree(session, batches):
    report = compare(session, batches, against="numpy")
    report.check()
    assert {record.name for record in report.records if record.kind == "gradient"} == session.params.keys()


@pytest.mark.parametrize("optimizer", [optim.SGD(0.1, momentum=0.9), optim.AdamW(0.01)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_what_an_op_declares_in_numpy_is_its_twin(name, dtype, optimizer):
    rng = np.random.default_rng()
    session = Session(nn.Sequential(*MODELS[name]).init(3, dtype), dtype=dtype, optimizer=optimizer)
    agree(session, [(rng.standard_normal((9, 7)).astype(dtype), rng.integers(0, 4, 9)) for _ in range(3)])


def test_an_embedding_of_integers_has_a_twin():
    rng = np.random.default_rng()
    model = nn.Sequential(nn.Embedding(11, 5), nn.LayerNorm(5), nn.Flatten(), nn.Linear(15, 4)).init(1)
    agree(
        Session(model, optimizer=optim.Adam(0.01)),
        [(rng.integers(0, 11, (8, 3)), rng.integers(0, 4, 8)) for _ in range(3)],
    )


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.5), nn.Function(lambda x: x, lambda dy, x, y: dy)], ids=["Dropout", "Function"]
)
def test_a_layer_without_formula_is_named(layer):
    twin = PlainTwin(
        nn.Sequential(nn.Linear(3, 2), layer),
        {"0.weight": np.ones((3, 2)), "0.bias": np.ones(2)},
        loss="cross_entropy",
        optimizer=optim.SGD(0.1),
        clip_norm=None,
        accumulate=1,
        dtype="float64",
    )
    with pytest.raises(TypeError, match=r"\[parity\] 1\.(Dropout|Function).* has no twin in NumPy"):
        twin.step(np.ones((4, 3)), np.zeros(4, int))
