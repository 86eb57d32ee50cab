"""Steps and epochs by nn-engine-core, whose training loop is native as ours is.

Its SGD has no momentum, so it does less work than the others: in each step it passes over the weights one time fewer.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gradring.bench.contender import Work
from gradring.bench.fit_contenders import data as fit_data
from gradring.bench.step_contenders import LEARNING_RATE, data, weights


def _loop(case: dict[str, Any], x: Any, y: Any, batch: int, *, shuffle: bool) -> Work:
    """A native pass over the data with one-hot labels, which returns the mean loss."""
    import nnengine

    layers: list[Any] = []
    for inner, outer in pairwise(case["sizes"]):
        dense = nnengine.DenseLayer(inner, outer)
        layers += [dense, nnengine.ReLULayer()]
    layers.pop()

    class Network(nnengine.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for index, layer in enumerate(layers):
                setattr(self, f"layer{index}", layer)

        def forward(self, h: Any) -> Any:
            for layer in layers:
                h = layer.forward(h)
            return h

    one_hot = np.eye(case["sizes"][-1], dtype=np.float32)[y]
    loader = nnengine.DataLoader(x, one_hot, batch, shuffle, False)
    network = Network()
    loss = nnengine.SoftmaxCrossEntropyLoss()
    trainer = nnengine.JITCompiler(network, nnengine.SGD(LEARNING_RATE), loss)
    graph = trainer._cpp_engine
    # Tracing takes a step of its own, so the weights are set after it.
    graph.trace_batch(loader)
    for dense, (w, b) in zip(layers[::2], weights(case), strict=True):
        for tensor, value in zip(dense.parameters(), (w, b), strict=True):
            tensor.data = value.reshape(tensor.data.shape)
    kept = trainer, network, layers, loss  # the graph does not own them

    def run() -> float:
        assert kept
        loader.reset()
        total, batches = graph.fast_loop(loader)
        return float(total / batches)

    return run


def step(case: dict[str, Any]) -> Work:
    """One native step on one batch."""
    x, y = data(case)
    return _loop(case, x, y, len(x), shuffle=False)


def epoch(case: dict[str, Any]) -> Work:
    """One native epoch over its own loader, which shuffles."""
    return _loop(case, *fit_data(), case["batch"], shuffle=True)
