"""The same model and training in PyTorch: autograd, ``torch.nn.functional`` and ``torch.optim``, on our weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradring.ir import Graph, Input, Node, trace
from gradring.ops._declare import DECLARED, attributes_with_defaults
from gradring.parity.loss import LossTwin

if TYPE_CHECKING:
    from gradring.losses import Loss
    from gradring.nn.layer import Layer
    from gradring.optim import Optimizer

__all__ = ["Twin", "torch_forward"]

Tensors = Mapping[str, Any]
Forward = Callable[[Tensors, Any], Any]


def torch_forward(model: Layer) -> Forward:
    """``forward(params, x)``: what ``model`` computes in training, by the twins that its ops declare.

    ``params`` has tensors under our names and in our layout: ``weight`` of a Linear is (in, out). Layers with randomness
    (Dropout with p > 0) or of your own (Function) have no twin: ``TypeError``.
    """
    graphs: dict[tuple[Any, ...], tuple[Graph, str]] = {}

    def forward(params: Tensors, x: Any) -> Any:
        import torch

        integers = not torch.is_floating_point(x)
        key = (tuple(x.shape), integers)
        if key not in graphs:
            graphs[key] = trace(model, {"x": Input(tuple(x.shape), integers)}, training=True)
        graph, output = graphs[key]
        if integers and graph.values["x"].dtype != "int64":
            x = x.to(next(iter(params.values())).dtype)
        known = {**params, "x": x}

        def value(name: str) -> Any:
            if name not in known:
                of = graph.values[name]
                assert of.within is not None
                known[name] = value(of.within).reshape(of.shape)
            return known[name]

        for node in graph.nodes:
            if node.phase == "forward" and "y" in node.outputs:
                inputs = {role: value(name) for role, name in node.inputs.items() if not name.startswith("step.")}
                made = _twin_of(node)(**inputs, **attributes_with_defaults(node.op, node.attributes))
                known |= {name: made[role] for role, name in node.outputs.items() if role in made}
        return value(output)

    return forward


def _twin_of(node: Node) -> Callable[..., Mapping[str, Any]]:
    declared = DECLARED.get(node.op)
    if declared is None or declared.torch is None or "draw" in node.inputs:
        path, layer = re.fullmatch(r"((?:[^.()]+\.)*)(.*)", node.origin, re.DOTALL).groups()  # type: ignore[union-attr]
        at = path.rstrip(".") or "the root"
        raise TypeError(f"[parity] {layer} at {at!r} has no twin in PyTorch; give one with forward=")
    return declared.torch


class Twin:
    """Trains with PyTorch in one precision: loss, backward, clipping, accumulation, optimizer, schedule."""

    def __init__(
        self,
        forward: Forward,
        params: Mapping[str, NDArray[Any]],
        *,
        loss: str | Loss,
        optimizer: Optimizer,
        frozen: Collection[str] = (),
        clip_norm: float | None,
        accumulate: int,
        dtype: str,
    ) -> None:
        import torch

        self._forward, self._loss = forward, LossTwin(loss, dtype, "torch")
        self._own = forward.__module__ == __name__
        self._clip_norm, self._accumulate, self._dtype = clip_norm, accumulate, dtype
        self.params: dict[str, Any] = {
            name: torch.from_numpy(np.array(array, dtype)).requires_grad_(name not in frozen)
            for name, array in params.items()
        }
        self._trained = {name: tensor for name, tensor in self.params.items() if name not in frozen}
        numbers = optimizer.assigned(list(self.params), frozen)
        self._rules = dict(zip(self._trained, map(optimizer.rule, numbers), strict=True))
        self._state = {
            name: {state: torch.zeros_like(tensor) for state in self._rules[name].state_names}
            for name, tensor in self._trained.items()
        }
        self._weight = 0.0
        self._pending = self._updates = 0
        self.grads: dict[str, NDArray[Any]] = {}

    def step(self, x: NDArray[Any], y: NDArray[Any]) -> float:
        """Train on one batch. ``grads`` then has its gradients before clipping, or sums over samples if batches
        accumulate."""
        import torch

        # A ``forward`` that the caller gave always gets floats.
        own = self._own and x.dtype.kind in "iu"
        inputs = torch.from_numpy(np.ascontiguousarray(x, np.int64 if own else self._dtype))
        whole = self._accumulate == 1
        output = self._forward(self.params, inputs)
        losses, slope = self._loss(output, torch.from_numpy(self._loss.target(tuple(output.shape), y)))
        output.backward(slope * (1 / len(x) if whole else 1))
        self.grads = {name: tensor.grad.numpy().copy() for name, tensor in self._trained.items()}
        self._weight += 1.0 if whole else len(x)
        self._pending += 1
        if self._pending == self._accumulate:
            self.flush()
        return float(losses.mean())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The parameters as NumPy arrays."""
        return {name: tensor.detach().numpy() for name, tensor in self.params.items()}

    def flush(self) -> None:
        """Apply the gradients that wait for an update."""
        import torch

        if not self._pending:
            return
        tensors = list(self._trained.values())
        for tensor in tensors:
            tensor.grad /= self._weight
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(tensors, self._clip_norm)
        self._updates += 1
        for name, rule in self._rules.items():
            self._update(name, rule, float(rule.learning_rates(self._updates - 1, 1)[0]))
        self._pending, self._weight = 0, 0.0

    def _update(self, name: str, rule: Optimizer, rate: float) -> None:
        """Update a parameter by the twin that the rule's op declares."""
        import torch

        op, attributes, operands = rule.update()
        declared, tensor, kept = DECLARED[op].torch, self._trained[name], self._state[name]
        assert declared is not None
        given = attributes_with_defaults(op, {"lr": rate, "step": self._updates, **attributes})
        states = {operands[state]: array for state, array in kept.items()}
        made = declared(param=tensor.detach(), grad=tensor.grad, **states, **given)
        with torch.no_grad():
            tensor.copy_(made["param"])
            for state, array in kept.items():
                array.copy_(made[operands[state]])
        tensor.grad = None
