"""The MLP training step written out by hand, without automatic differentiation: what an expert gets from a library.

NumPy and PyTorch write every result into an array made once, and keep all gradients (and the optimizer's state) in one vector,
so that the update is a few calls for the whole model. The compiled one gives the same formulas to Inductor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .contender import Work
from .step_contenders import (
    BETA1,
    BETA2,
    EPSILON,
    LEARNING_RATE,
    MOMENTUM,
    data,
    optimizer_of,
    threads,
    weights,
)


class Flat(NamedTuple):
    """Parameters, gradients and the optimizer's state, each end to end in one vector, and a shaped view of each part."""

    parameters: np.ndarray
    gradients: np.ndarray
    momentum: np.ndarray  # Adam's first moments
    second: np.ndarray  # Adam's second moments
    p: list[np.ndarray]  # w0, b0, w1, b1, ...
    g: list[np.ndarray]


def flat_state(case: dict[str, Any]) -> Flat:
    """The case's initial weights, laid out flat."""
    arrays = [array for layer in weights(case) for array in layer]
    parameters = np.concatenate([array.ravel() for array in arrays])
    gradients = np.zeros_like(parameters)
    ends = np.cumsum([array.size for array in arrays])
    places = [(slice(end - array.size, end), array.shape) for array, end in zip(arrays, ends, strict=True)]
    return Flat(
        parameters,
        gradients,
        np.zeros_like(parameters),
        np.zeros_like(parameters),
        [parameters[where].reshape(shape) for where, shape in places],
        [gradients[where].reshape(shape) for where, shape in places],
    )


def numpy_step(case: dict[str, Any]) -> Work:
    """NumPy with its OpenBLAS."""
    state = flat_state(case)
    x, y = data(case)
    step = numpy_work(state, len(x), numpy_update(state, case))
    return lambda: step(x, y)


def numpy_update(state: Flat, case: dict[str, Any]) -> Callable[[], None]:
    """The optimizer's pass over all parameters."""
    parameters, gradients, momentum, second = state[:4]
    scaled, name = np.empty_like(parameters), optimizer_of(case)
    rate, decay = np.float32(LEARNING_RATE), np.float32(MOMENTUM)
    add, multiply, subtract, divide, sqrt = np.add, np.multiply, np.subtract, np.divide, np.sqrt
    beta1, beta2, rest1, rest2 = (np.float32(value) for value in (BETA1, BETA2, 1 - BETA1, 1 - BETA2))
    epsilon, number = np.float32(EPSILON), 0

    def sgd() -> None:
        multiply(gradients, rate, out=scaled)
        subtract(parameters, scaled, out=parameters)

    def with_momentum() -> None:
        multiply(momentum, decay, out=momentum)
        add(momentum, gradients, out=momentum)
        multiply(momentum, rate, out=scaled)
        subtract(parameters, scaled, out=parameters)

    def adam() -> None:
        nonlocal number
        number += 1
        size = np.float32(LEARNING_RATE / (1 - BETA1**number))
        root = np.float32((1 - BETA2**number) ** -0.5)
        multiply(momentum, beta1, out=momentum)
        multiply(gradients, rest1, out=scaled)
        add(momentum, scaled, out=momentum)
        multiply(second, beta2, out=second)
        multiply(gradients, gradients, out=scaled)
        multiply(scaled, rest2, out=scaled)
        add(second, scaled, out=second)
        sqrt(second, out=scaled)
        multiply(scaled, root, out=scaled)
        add(scaled, epsilon, out=scaled)
        divide(momentum, scaled, out=scaled)
        multiply(scaled, size, out=scaled)
        subtract(parameters, scaled, out=parameters)

    return {"sgd": sgd, "momentum": with_momentum, "adam": adam}[name]


def numpy_work(state: Flat, batch: int, update: Callable[[], None]) -> Callable[[np.ndarray, np.ndarray], float]:
    """A step on a batch of this size. Only the array of the labels' logits is allocated in a step."""
    p, g = state.p, state.g
    layers = len(p) // 2
    out = [np.empty((batch, w.shape[1]), np.float32) for w in p[::2]]
    delta = [np.empty_like(array) for array in out]
    mask = [np.empty(array.shape, bool) for array in out]
    row_max, row_sum = np.empty((batch, 1), np.float32), np.empty((batch, 1), np.float32)
    rows = np.arange(batch)
    share = np.float32(1 / batch)
    zero = np.float32(0)
    add, multiply, subtract, maximum, matmul = np.add, np.multiply, np.subtract, np.maximum, np.matmul
    max_of, sum_of = np.maximum.reduce, np.add.reduce

    def step(x: np.ndarray, y: np.ndarray) -> float:
        h = x
        for i in range(layers):
            z = out[i]
            matmul(h, p[2 * i], out=z)
            add(z, p[2 * i + 1], out=z)
            if i + 1 < layers:
                maximum(z, zero, out=z)
            h = z
        d = delta[-1]
        max_of(h, axis=1, keepdims=True, out=row_max)
        subtract(h, row_max, out=h)
        picked = h[rows, y]
        np.exp(h, out=d)
        sum_of(d, axis=1, keepdims=True, out=row_sum)
        multiply(d, share / row_sum, out=d)
        d[rows, y] -= share
        loss = float((sum_of(np.log(row_sum), axis=None) - sum_of(picked)) * share)
        for i in reversed(range(layers)):
            d = delta[i]
            matmul((out[i - 1] if i else x).T, d, out=g[2 * i])
            sum_of(d, axis=0, out=g[2 * i + 1])
            if i:
                matmul(d, p[2 * i].T, out=delta[i - 1])
                np.greater(out[i - 1], zero, out=mask[i - 1])
                multiply(delta[i - 1], mask[i - 1], out=delta[i - 1])
        update()
        return loss

    return step


def torch_step(case: dict[str, Any]) -> Work:
    """PyTorch's kernels in inference mode."""
    import torch

    torch.set_num_threads(threads())
    x, y = data(case)
    state = flat_state(case)
    return torch_work(state, torch.from_numpy(x), torch.from_numpy(y), torch_update(state, case), {})


def torch_update(state: Flat, case: dict[str, Any]) -> Callable[[], None]:
    """The optimizer's pass over all parameters; Adam is PyTorch's fused kernel."""
    import torch

    parameters, gradients, momentum, second = (torch.from_numpy(array) for array in state[:4])
    number, lists = torch.zeros(()), [[tensor] for tensor in (parameters, gradients, momentum, second)]
    numbers = [number]
    options = {"lr": LEARNING_RATE, "beta1": BETA1, "beta2": BETA2, "weight_decay": 0.0, "eps": EPSILON}

    def adam() -> None:
        number.add_(1)
        torch._fused_adam_(*lists, [], numbers, **options, amsgrad=False, maximize=False)

    def with_momentum() -> None:
        momentum.mul_(MOMENTUM).add_(gradients)
        parameters.add_(momentum, alpha=-LEARNING_RATE)

    def sgd() -> None:
        parameters.add_(gradients, alpha=-LEARNING_RATE)

    return {"sgd": sgd, "momentum": with_momentum, "adam": adam}[optimizer_of(case)]


def torch_work(state: Flat, x: Any, y: Any, update: Callable[[], None], shared: dict[int, Any]) -> Callable[[], float]:
    """A step that reads the values that the tensors x and y hold at that time. `shared` keeps the intermediate tensors of
    each batch size for further steps."""
    import torch

    p, g = [torch.from_numpy(array) for array in state.p], [torch.from_numpy(array) for array in state.g]
    layers, batch = len(p) // 2, len(x)
    if batch not in shared:
        out = [torch.empty(batch, w.shape[1]) for w in p[::2]]
        shared[batch] = out, [torch.empty_like(tensor) for tensor in out], torch.empty_like(out[-1])
    out, delta, log_p = shared[batch]
    labels, minus_one = y[:, None], torch.full((batch, 1), -1.0)
    weights_t, inputs_t = [w.t() for w in p[::2]], [x.t(), *(tensor.t() for tensor in out[:-1])]
    relu_backward = torch.ops.aten.threshold_backward.grad_input

    @torch.inference_mode()
    def step() -> float:
        h = x
        for i in range(layers):
            torch.addmm(p[2 * i + 1], h, p[2 * i], out=out[i])
            if i + 1 < layers:
                torch.relu_(out[i])
            h = out[i]
        torch.log_softmax(h, 1, out=log_p)
        loss = torch.nn.functional.nll_loss(log_p, y)
        d = delta[-1]
        torch.exp(log_p, out=d)
        d.scatter_add_(1, labels, minus_one)
        d.mul_(1 / batch)
        for i in reversed(range(layers)):
            d = delta[i]
            torch.mm(inputs_t[i], d, out=g[2 * i])
            torch.sum(d, 0, out=g[2 * i + 1])
            if i:
                torch.mm(d, weights_t[i], out=delta[i - 1])
                relu_backward(delta[i - 1], out[i - 1], 0.0, grad_input=delta[i - 1])
        update()
        return float(loss)

    return step
