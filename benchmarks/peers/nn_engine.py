"""Steps and epochs by nn-engine-core, whose training loop is native as ours is.

Its SGD has no momentum. Where the others have it, nn-engine-core does less work: in each step it passes over the weights one
time fewer.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gradring.bench.contender import Work
from gradring.bench.fit_contenders import Passes
from gradring.bench.fit_contenders import data as fit_data
from gradring.bench.step_contenders import LEARNING_RATE, data, optimizer_of, weights


def _forget_moments(engine: Any) -> None:
    """Sets Adam's state to what it is before the first step: through a checkpoint, because nothing else gives access.

    The file has the number of the step (int32), the number of tensors (int64), for each tensor its shape (two int64) and its
    first moments, and then all second moments (float32).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        engine.save_checkpoint(str(path))
        file = path.with_name("state.opt.nne")
        old = file.read_bytes()
        new = bytearray(len(old))
        at = 4
        (count,) = struct.unpack_from("<q", old, at)
        new[at : at + 8] = old[at : at + 8]
        at += 8
        for _ in range(count):
            rows, columns = struct.unpack_from("<qq", old, at)
            new[at : at + 16] = old[at : at + 16]
            at += 16 + 4 * rows * columns
        file.write_bytes(new)
        engine.load_checkpoint(str(path))


def _loop(case: dict[str, Any], x: Any, y: Any) -> Callable[[Any], float]:
    """A native pass over a loader, which returns the sum of the batches' mean losses."""
    import nnengine

    layers: list[Any] = []
    for inner, outer in pairwise(case["sizes"]):
        layers += [nnengine.DenseLayer(inner, outer), nnengine.ReLULayer()]
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

    network, loss, adam = Network(), nnengine.SoftmaxCrossEntropyLoss(), optimizer_of(case) == "adam"
    trainer = nnengine.JITCompiler(network, (nnengine.Adam if adam else nnengine.SGD)(LEARNING_RATE), loss)
    engine = trainer._cpp_engine
    # Tracing takes a step of its own, so the optimizer's state and the weights are set after it.
    engine.trace_batch(_loader(case, x, y, shuffle=False))
    if adam:
        _forget_moments(engine)
    for dense, (w, b) in zip(layers[::2], weights(case), strict=True):
        for tensor, value in zip(dense.parameters(), (w, b), strict=True):
            tensor.data = value.reshape(tensor.data.shape)
    kept = trainer, network, layers, loss  # the engine does not own them

    def run(loader: Any) -> float:
        assert kept
        loader.reset()
        return float(engine.fast_loop(loader)[0])

    return run


def _loader(case: dict[str, Any], x: Any, y: Any, *, shuffle: bool) -> Any:
    import nnengine

    one_hot = np.eye(case["sizes"][-1], dtype=np.float32)[y]
    return nnengine.DataLoader(x, one_hot, case["batch"], shuffle, False)


def step(case: dict[str, Any]) -> Work:
    """One native step on one batch."""
    x, y = data(case)
    run, loader = _loop(case, x, y), _loader(case, x, y, shuffle=False)
    return lambda: run(loader)


def epoch(case: dict[str, Any]) -> Work:
    """Native epochs over its own loader, which shuffles at every reset."""
    x, y = fit_data(case)
    shuffled = _loader(case, x, y, shuffle=True)
    return Passes(
        case, len(x), _loop(case, x, y), lambda: shuffled, lambda rows: _loader(case, x[:rows], y[:rows], shuffle=False)
    )
