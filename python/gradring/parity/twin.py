"""The same model and training in PyTorch: autograd, ``torch.nn.functional`` and ``torch.optim``, on our weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gradring.nn.layer import Layer
    from gradring.optim import Optimizer

__all__ = ["Twin", "torch_forward"]

Tensors = Mapping[str, Any]
Forward = Callable[[Tensors, Any], Any]


def torch_forward(model: Layer) -> Forward:
    """``forward(params, x)``: what ``model`` computes, in PyTorch's functions.

    ``params`` has tensors under our names and in our layout: ``weight`` is (in, out). Layers with randomness
    (Dropout with p > 0) or of your own (Function) have no twin: ``TypeError``.
    """
    return _layer(model, "")


def _layer(layer: Layer, path: str) -> Forward:
    import torch

    functional = torch.nn.functional
    kind = type(layer).__name__
    inside = [_layer(child, _join(path, name)) for name, child in layer.children().items()]
    plain: dict[str, Callable[[Any], Any]] = {
        "ReLU": functional.relu,
        "GELU": lambda x: functional.gelu(x, approximate="tanh"),
        "SiLU": functional.silu,
        "Tanh": torch.tanh,
        "Sigmoid": torch.sigmoid,
        "Flatten": lambda x: x.flatten(1),
    }
    if kind in plain:
        function = plain[kind]
        return lambda params, x: function(x)
    if kind == "Linear":
        weight, bias = _join(path, "weight"), _join(path, "bias")
        return lambda params, x: functional.linear(x, params[weight].t(), params.get(bias))
    if kind == "Sequential":
        return lambda params, x: _chain(inside, params, x)
    if kind == "Residual":
        return lambda params, x: x + inside[0](params, x)
    if kind == "Dropout" and getattr(layer, "p", None) == 0:
        return lambda params, x: x
    raise TypeError(f"[parity] {layer!r} at {path or 'the root'!r} has no twin in PyTorch; give one with forward=")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _chain(layers: list[Forward], params: Tensors, x: Any) -> Any:
    for layer in layers:
        x = layer(params, x)
    return x


class Twin:
    """Trains with PyTorch in one precision: loss, backward, clipping, accumulation, optimizer, schedule."""

    def __init__(
        self,
        forward: Forward,
        params: Mapping[str, NDArray[Any]],
        *,
        loss: str,
        optimizer: Optimizer,
        clip_norm: float | None,
        accumulate: int,
        dtype: str,
    ) -> None:
        import torch

        self._forward, self._loss, self._rule = forward, loss, optimizer
        self._clip_norm, self._accumulate, self._dtype = clip_norm, accumulate, dtype
        self.params: dict[str, Any] = {
            name: torch.from_numpy(array.astype(dtype)).requires_grad_() for name, array in params.items()
        }
        self._optimizer = _torch_optimizer(optimizer, list(self.params.values()))
        self._weight = 0.0
        self._pending = self._updates = 0
        self.grads: dict[str, NDArray[Any]] = {}

    def step(self, x: NDArray[Any], y: NDArray[Any]) -> float:
        """One batch. ``grads`` then has its gradients before clipping; accumulating, sums over samples."""
        import torch

        inputs = torch.from_numpy(np.ascontiguousarray(x, self._dtype))
        whole = self._accumulate == 1
        loss = self._mean_loss(self._forward(self.params, inputs), y)
        (loss if whole else loss * len(x)).backward()
        self.grads = {name: tensor.grad.numpy().copy() for name, tensor in self.params.items()}
        self._weight += 1.0 if whole else len(x)
        self._pending += 1
        if self._pending == self._accumulate:
            self.flush()
        return float(loss.detach())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The parameters as NumPy arrays."""
        return {name: tensor.detach().numpy() for name, tensor in self.params.items()}

    def flush(self) -> None:
        """Apply the gradients that wait for an update."""
        import torch

        if not self._pending:
            return
        tensors = list(self.params.values())
        for tensor in tensors:
            tensor.grad /= self._weight
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(tensors, self._clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = float(self._rule.learning_rates(self._updates, 1)[0])
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._updates += 1
        self._pending, self._weight = 0, 0.0

    def _mean_loss(self, output: Any, y: NDArray[Any]) -> Any:
        import torch

        functional = torch.nn.functional
        if self._loss == "cross_entropy":
            return functional.cross_entropy(output, torch.from_numpy(np.ascontiguousarray(y, np.int64)))
        target = torch.from_numpy(np.ascontiguousarray(y, self._dtype)).reshape(output.shape)
        functions: dict[str, Any] = {
            "mse": functional.mse_loss,
            "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        }
        return functions[self._loss](output, target)


def _torch_optimizer(rule: Optimizer, tensors: list[Any]) -> Any:
    import torch

    options = rule.hyperparameters()
    classes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if rule.kind not in classes:
        raise TypeError(f"[parity] {rule!r} has no twin in PyTorch")
    return classes[rule.kind](tensors, lr=1.0, **options)
