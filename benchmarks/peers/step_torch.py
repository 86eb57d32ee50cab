"""The MLP training step in PyTorch: eager autograd, torch.compile, and the formulas by hand through Inductor."""

from __future__ import annotations

from typing import Any

from gradring.bench.contender import Work
from gradring.bench.step_contenders import (
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


def torch_eager(case: dict[str, Any]) -> Work:
    """PyTorch, eager, with the fused optimizer and gradients set to None."""
    return _torch(case)


def torch_compiled(case: dict[str, Any]) -> Work:
    """PyTorch, forward and loss (and so backward) through torch.compile, the fused optimizer."""
    return _torch(case, dynamic=None)


def torch_parts(case: dict[str, Any], **compiling: Any) -> tuple[Any, Any]:
    """The loss of a batch as a function, compiled if there are arguments for torch.compile, and the fused optimizer."""
    import torch

    torch.set_num_threads(threads())
    layers: list[Any] = []
    for w, b in weights(case):
        linear = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    name = optimizer_of(case)
    if name == "adam":
        optimizer: Any = torch.optim.Adam(model.parameters(), LEARNING_RATE, (BETA1, BETA2), EPSILON, fused=True)
    else:
        momentum = MOMENTUM if name == "momentum" else 0.0
        optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=momentum, fused=True)

    def loss_of(inputs: Any, labels: Any) -> Any:
        narrow = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(case.get("dtype", ""))
        with torch.autocast("cpu", narrow, enabled=narrow is not None):
            return torch.nn.functional.cross_entropy(model(inputs), labels)

    return (torch.compile(loss_of, **compiling) if compiling else loss_of), optimizer


def _torch(case: dict[str, Any], **compiling: Any) -> Work:
    import torch

    forward, optimizer = torch_parts(case, **compiling)
    xs, ys = data(case)
    x, y = torch.from_numpy(xs), torch.from_numpy(ys)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def torch_step_compiled(case: dict[str, Any]) -> Work:
    """The whole step, update included, as one Inductor graph called through its C++ wrapper: no graph break, no autograd."""
    import torch

    torch.set_num_threads(threads())
    xs, ys = data(case)
    x, y = torch.from_numpy(xs), torch.from_numpy(ys)
    body = torch_compiled_body(case)

    @torch.inference_mode()
    def step() -> float:
        return float(body(x, y))

    return step


def torch_compiled_body(case: dict[str, Any]) -> Any:
    """A compiled function (x, y) -> loss that takes a step on the case's model."""
    import torch
    import torch._inductor.config

    torch._inductor.config.cpp_wrapper = True
    p = [torch.from_numpy(array) for layer in weights(case) for array in layer]
    momentum, second = ([torch.zeros_like(tensor) for tensor in p] for _ in range(2))
    layers, name, number = len(p) // 2, optimizer_of(case), torch.zeros(())

    def body(x: Any, y: Any, p: list[Any], momentum: list[Any], second: list[Any], number: Any) -> Any:
        inputs, h = [], x
        for i in range(layers):
            inputs.append(h)
            h = torch.addmm(p[2 * i + 1], h, p[2 * i])
            if i + 1 < layers:
                h = torch.relu(h)
        log_p = torch.log_softmax(h, 1)
        loss = torch.nn.functional.nll_loss(log_p, y)
        d = (log_p.exp() - (torch.arange(h.shape[1]) == y[:, None]).float()) * (1 / len(x))
        gradients: list[Any] = [None] * len(p)
        for i in reversed(range(layers)):
            gradients[2 * i] = torch.mm(inputs[i].t(), d)
            gradients[2 * i + 1] = d.sum(0)
            if i:
                d = torch.where(inputs[i] > 0, torch.mm(d, p[2 * i].t()), 0.0)
        if name == "adam":
            number = number + 1
            size, root = LEARNING_RATE / (1 - BETA1**number), (1 - BETA2**number).rsqrt()
        for tensor, first, spread, gradient in zip(p, momentum, second, gradients, strict=True):
            if name == "adam":
                first.mul_(BETA1).add_(gradient, alpha=1 - BETA1)
                spread.mul_(BETA2).add_(gradient * gradient, alpha=1 - BETA2)
                tensor.sub_(size * first / (spread.sqrt() * root + EPSILON))
            elif name == "momentum":
                first.mul_(MOMENTUM).add_(gradient)
                tensor.add_(first, alpha=-LEARNING_RATE)
            else:
                tensor.sub_(LEARNING_RATE * gradient)
        return loss, number

    compiled = torch.compile(body, fullgraph=True, dynamic=False)

    def step(x: Any, y: Any) -> Any:
        nonlocal number
        loss, number = compiled(x, y, p, momentum, second, number)
        return loss

    return step
