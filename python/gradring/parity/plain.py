"""The same model and training in NumPy, by the formulas that the ops declare and without regard to speed. It is the reference
if PyTorch is not installed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradring.parity.formulas import Formulas

if TYPE_CHECKING:
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
        loss: str,
        optimizer: Optimizer,
        frozen: Collection[str] = (),
        clip_norm: float | None,
        accumulate: int,
        dtype: str,
    ) -> None:
        self._model, self._loss, self._dtype = model, loss, dtype
        self._clip_norm, self._accumulate = clip_norm, accumulate
        self.params: dict[str, Array] = {name: array.astype(dtype) for name, array in params.items()}
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
        losses, slope = _loss(self._loss, batch.forward(), np.asarray(y))
        weight = len(x) if self._accumulate > 1 else 1.0
        batch.backward(slope * (weight / losses.size))
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
            _RULES[rule.kind](rule, self._updates, rate, self.params[name], grad, self._state[name])
        self._pending, self._weight = 0, 0.0


def _sigmoid(x: Array) -> Array:
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + z), z / (1 + z))


def _loss(kind: str, output: Array, y: Array) -> tuple[Array, Array]:
    """The losses (whose mean is the loss), and the derivative of their sum by the output."""
    if kind == "cross_entropy":
        shifted = output - output.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        rows, labels = np.arange(len(output)), y.reshape(-1)
        slope = np.exp(log_p)
        slope[rows, labels] -= 1
        return -log_p[rows, labels], slope
    target = y.astype(output.dtype).reshape(output.shape)
    if kind == "mse":
        return np.square(output - target), 2 * (output - target)
    losses = np.maximum(output, 0) - output * target + np.log1p(np.exp(-np.abs(output)))
    return losses, _sigmoid(output) - target


State = dict[str, Array]


def _sgd(rule: Any, update: int, rate: float, p: Array, grad: Array, state: State) -> None:
    grad = grad + rule.weight_decay * p
    if state:
        velocity = state["momentum"]
        velocity[...] = grad if update == 1 else rule.momentum * velocity + grad
        grad = grad + rule.momentum * velocity if rule.nesterov else velocity
    p -= rate * grad


def _adam(rule: Any, update: int, rate: float, p: Array, grad: Array, state: State) -> None:
    (b1, b2), m, v = rule.betas, state["m"], state["v"]
    if rule.kind == "adamw":
        p *= 1 - rate * rule.weight_decay
    else:
        grad = grad + rule.weight_decay * p
    m[...] = b1 * m + (1 - b1) * grad
    v[...] = b2 * v + (1 - b2) * grad**2
    if rule.amsgrad:
        v = state["vmax"] = np.maximum(state["vmax"], v)
    p -= rate * (m / (1 - b1**update)) / (np.sqrt(v / (1 - b2**update)) + rule.eps)


def _rmsprop(rule: Any, update: int, rate: float, p: Array, grad: Array, state: State) -> None:
    grad, v = grad + rule.weight_decay * p, state["v"]
    v[...] = rule.alpha * v + (1 - rule.alpha) * grad**2
    if rule.centered:
        mean = state["mean"]
        mean[...] = rule.alpha * mean + (1 - rule.alpha) * grad
        v = np.maximum(v - mean**2, 0)
    step = grad / (np.sqrt(v) + rule.eps)
    if rule.momentum:
        step = state["velocity"] = rule.momentum * state["velocity"] + step
    p -= rate * step


def _lion(rule: Any, update: int, rate: float, p: Array, grad: Array, state: State) -> None:
    (b1, b2), m = rule.betas, state["m"]
    p -= rate * (np.sign(b1 * m + (1 - b1) * grad) + rule.weight_decay * p)
    m[...] = b2 * m + (1 - b2) * grad


_RULES: dict[str, Callable[..., None]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adam,
    "rmsprop": _rmsprop,
    "lion": _lion,
}
