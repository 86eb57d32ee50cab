"""Random models beside a page of NumPy in float64; needs nothing installed."""

from itertools import pairwise

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from gradring import nn, optim
from gradring.parity import PlainTwin, compare
from gradring.session import Session

ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)
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
    # binary_cross_entropy contains a sigmoid, so a model that ends with one is refused.
    assume(loss != "binary_cross_entropy" or not repr(layers).endswith("Sigmoid())"))
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
