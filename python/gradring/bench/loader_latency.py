"""Single batches: how long it takes to get a ready one, and how much loading slows down the training step."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np

_BATCHES = 400
_STEP = 0.003  # seconds of the consumer's own work between batches
_WORK = bytes(1 << 16)  # the busy step hashes these bytes, and hashing releases the interpreter's lock


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"seconds": ordered[len(ordered) // 2], "p99_seconds": ordered[len(ordered) * 99 // 100]}


class HandOff:
    """Measures ``next(iterator)`` after a busy training step, which gives the loader time to make the batch ready."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self._loader = make()
        self._iterator: Iterator[Any] = iter(self._loader)
        self.facts: dict[str, float] = {}
        for _ in range(20):
            next(self._iterator)

    def measure(self) -> dict[str, float]:
        """The median and the 99th percentile of many."""
        took = []
        for _ in range(_BATCHES):
            until = time.perf_counter() + _STEP
            while time.perf_counter() < until:
                hashlib.sha256(_WORK).digest()
            begin = time.perf_counter()
            batch = next(self._iterator)
            took.append(time.perf_counter() - begin)
            del batch
        return _quantiles(took)


def hand_off_data() -> tuple[Any, Any]:
    return np.zeros((1_000_000, 64), np.uint8), np.zeros(1_000_000, np.int64)


def ours_hand_off(case: dict[str, Any], *, threads: int | Literal["auto"] = "auto") -> HandOff:
    """gr.Loader, which fills batches ahead if it has a thread."""
    import gradring as gr

    return HandOff(lambda: gr.Loader(hand_off_data(), 64, shuffle=True, num_threads=threads))


def torch_hand_off(case: dict[str, Any]) -> HandOff:
    """PyTorch's DataLoader with two workers."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y = hand_off_data()
    dataset = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return HandOff(lambda: DataLoader(dataset, 64, shuffle=True, num_workers=2))


class Slowdown:
    """Seconds a training step takes with batches from a loader, and with one batch that is always there.

    Data are 60000 x 784 bytes, converted to floats between 0 and 1; an MLP 784-256-128-10 learns 64 at a time, by
    ``trainer.fit(loader)`` or by ``for x, y in loader: trainer.step(x, y)``.
    """

    def __init__(self, case: dict[str, Any], *, how: str) -> None:
        import gradring as gr

        self.facts: dict[str, float] = {}
        self._how = how
        random = np.random.default_rng(0)
        x = random.integers(0, 256, (60000, 784), dtype=np.uint8)
        y = random.integers(0, 10, 60000)
        self._fixed = (x[:64].astype(np.float32) / 255, y[:64])
        self._loader = gr.Loader(
            (x, y),
            64,
            shuffle=True,
            drop_last=True,
            transforms={0: [gr.transforms.Cast("float32"), gr.transforms.Scale(1 / 255)]},
        )
        layers = (gr.nn.Linear(784, 256), gr.nn.ReLU(), gr.nn.Linear(256, 128), gr.nn.ReLU(), gr.nn.Linear(128, 10))
        self._trainer = gr.Trainer(gr.nn.Sequential(*layers), loss="cross_entropy", optimizer=gr.optim.SGD(1e-3))
        self._alone(50)
        self._loaded()

    def _alone(self, steps: int) -> float:
        x, y = self._fixed
        begin = time.perf_counter()
        for _ in range(steps):
            self._trainer.step(x, y)
        return (time.perf_counter() - begin) / steps

    def _loaded(self) -> float:
        begin = time.perf_counter()
        if self._how == "fit":
            self._trainer.fit(self._loader, epochs=1)
        else:
            for x, y in self._loader:
                self._trainer.step(x, y)
        return (time.perf_counter() - begin) / len(self._loader)

    def measure(self) -> dict[str, float]:
        """The median of three epochs, each between two measurements without a loader: other processes may slow one down."""
        before, found = self._alone(400), []
        for _ in range(3):
            loaded, after = self._loaded(), self._alone(400)
            alone = (before + after) / 2
            found.append((loaded / alone - 1, loaded, alone))
            before = after
        slowdown, loaded, alone = sorted(found)[1]
        return {"seconds": loaded, "alone_seconds": alone, "slowdown": slowdown}
