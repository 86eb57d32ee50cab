"""Epochs in a shuffled order, per library: of Fashion-MNIST, or of random rows if the case has their number.

Peers run their own best loop: data preloaded in their tensors, one random permutation per epoch, rows gathered for some
batches at a time (no loader), the loss of the epoch summed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .contender import Work
from .step_contenders import our_trainer

CHECKED = 8  # batches of a checked epoch: the rounding of so few steps does not grow to what a mistake would change
BLOCK_BYTES = 1 << 20  # the most bytes of rows that a peer gathers at once: they should stay in the second cache


def data(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """float32 rows, and labels."""
    if rows := case.get("rows"):
        rng = np.random.default_rng(2)
        x = rng.standard_normal((rows, case["sizes"][0]), dtype=np.float32)
        return x, rng.integers(0, case["sizes"][-1], rows)
    import gradring as gr

    (images, labels), _ = gr.datasets.fashion_mnist()
    return np.ascontiguousarray(images.reshape(len(images), -1), np.float32), labels.astype(np.int64)


def block_rows(x: Any, batch: int) -> int:
    """How many rows of x a peer should gather at once: whole batches, at least one."""
    row_bytes = x[0].nbytes
    return int(min(batch * max(1, BLOCK_BYTES // (batch * row_bytes)), len(x)))


class Passes:
    """The case's number of epochs, each in an order of its own.

    ``one(order)`` trains on the rows in that order and returns the sum of the batches' mean losses. ``shuffled()`` makes an
    order, and ``in_order(rows)`` the order of the data, of the first rows.
    """

    def __init__(
        self,
        case: dict[str, Any],
        rows: int,
        one: Callable[[Any], float],
        shuffled: Work,
        in_order: Callable[[int], Any],
    ) -> None:
        self._one, self._shuffled, self._epochs = one, shuffled, case.get("epochs", 1)
        self._batches = min(rows // case["batch"], CHECKED)
        self._first, self._in_order = in_order(case["batch"]), in_order(self._batches * case["batch"])

    def __call__(self) -> float:
        """Train, and return the last epoch's sum."""
        total = 0.0
        for _ in range(self._epochs):
            total = self._one(self._shuffled())
        return total

    def check(self, count: int) -> list[float]:
        """The loss of the first batch, and then the mean losses of epochs over the first few batches, in the data's order."""
        return [self._one(self._first), *(self._one(self._in_order) / self._batches for _ in range(count - 1))]


class OurFit:
    """gradring: ``trainer.fit`` for the case's number of epochs."""

    def __init__(self, case: dict[str, Any]) -> None:
        import gradring as gr

        self._fit, self._epochs = our_trainer(case).fit, case.get("epochs", 1)
        (x, y), batch = data(case), case["batch"]
        self._loader = gr.Loader((x, y), batch, shuffle=True, seed=0)
        few = batch * min(len(x) // batch, CHECKED)
        self._first, self._in_order = (gr.Loader((x[:rows], y[:rows]), batch) for rows in (batch, few))

    def __call__(self) -> object:
        """Train."""
        return self._fit(self._loader, epochs=self._epochs, verbose=False)

    def check(self, count: int) -> list[float]:
        """The same as those of the peers."""
        losses: list[float] = self._fit(self._first, verbose=False)["loss"]
        if count > 1:
            losses = losses + self._fit(self._in_order, epochs=count - 1, verbose=False)["loss"]
        return losses


def ours(case: dict[str, Any]) -> Work:
    """gradring: ``trainer.fit``."""
    return OurFit(case)
