"""The same model and training in NumPy, by the formulas that the ops declare and without regard to speed. It is the reference
if PyTorch is not installed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradring.ops._declare import DECLARED, attributes_with_defaults
from gradring.parity.formulas import Formulas
from gradring.parity.loss import LossTwin

if TYPE_CHECKING:
    from gradring.losses import Loss
    from gradring.nn.layer import Layer
    from gradring.optim import Optimizer

__all__ = ["PlainTwin"]

Array = NDArray[Any]


class PlainTwin:
    """Trains with NumPy in one precision; the same interface as :class:`gradring.parity.Twin`.

    ``nearest_kink`` is the smallest distance of any ReLU's input from 0 so far: a larger rounding error may change a
    derivative from 0 to 1.
    """

    def __init__(
        self,
        model: Layer,
        params: Mapping[str, Array],
        *,
        loss: str | Loss,
        optimizer: Optimizer,
        frozen: Collection[str] = (),
        clip_norm: float | None,
        accumulate: int,
        dtype: str,
    ) -> None:
        self._model, self._loss, self._dtype = model, LossTwin(loss, dtype, "numpy"), dtype
        self._clip_norm, self._accumulate = clip_norm, accumulate
        self.params: dict[str, Array] = {name: np.array(array, dtype) for name, array in params.items()}
        self._trained = [name for name in self.params if name not in frozen]
        numbers = optimizer.assigned(list(self.params), frozen)
        self._rules = dict(zip(self._trained, map(optimizer.rule, numbers), strict=True))
        self._state = {
            name: {state: np.zeros_like(self.params[name]) for state in self._rules[name].state_names}
            for name in self._trained
        }
        self._weight = 0.0
        self._pending = self._updates = 0
        self.grads: dict[str, Array] = {name: np.zeros_like(array) for name, array in self.params.items()}
        self.nearest_kink = float("inf")

    def step(self, x: Array, y: Array) -> float:
        """Train on one batch. ``grads`` then has its gradients before clipping, or sums over samples if batches
        accumulate."""
        if not self._pending:
            self.grads = {name: np.zeros_like(array) for name, array in self.params.items()}
        batch = Formulas(self._model, self.params, self.grads, np.asarray(x), self._dtype)
        output = batch.forward()
        losses, slope = self._loss(output, self._loss.target(output.shape, np.asarray(y)))
        weight = len(x) if self._accumulate > 1 else 1.0
        batch.backward(slope * output.dtype.type(weight / len(losses)))
        self.nearest_kink = min(self.nearest_kink, batch.nearest_kink)
        self._weight += weight
        self._pending += 1
        if self._pending == self._accumulate:
            self.flush()
        return float(losses.mean())

    def flush(self) -> None:
        """Apply the gradients that wait for an update."""
        if not self._pending:
            return
        grads = {name: self.grads[name] / self._weight for name in self._trained}
        if self._clip_norm is not None:
            norm = np.sqrt(sum(np.sum(np.square(grad)) for grad in grads.values()))
            factor = min(1.0, self._clip_norm / (norm + 1e-6))
            grads = {name: grad * factor for name, grad in grads.items()}
        self._updates += 1
        for name, grad in grads.items():
            rule = self._rules[name]
            rate = float(rule.learning_rates(self._updates - 1, 1)[0])
            op, attributes, operands = rule.update()
            reference = DECLARED[op].reference
            assert reference is not None
            state = {operands[kept]: array for kept, array in self._state[name].items()}
            given = {"lr": rate, "step": self._updates, **attributes}
            made = reference(param=self.params[name], grad=grad, **state, **attributes_with_defaults(op, given))
            self.params[name][...] = made["param"]
            for kept, array in self._state[name].items():
                array[...] = made[operands[kept]]
        self._pending, self._weight = 0, 0.0
