"""PyTorch's kernels for rows of `cuda_ops_bench`: eager, and compiled by torch.compile. One line of JSON per row.

    python scripts/gpu_peers.py [small | quick | full] [--device cuda]

The sizes are those of csrc/ops/cuda_bench. Each row is the median of seven measurements with their range, by CUDA's events.
`small` is to see that it runs, on a CPU too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F

# m, n, k of a product; rows and classes; parameters
SIZES = {
    "full": (8192, 4096, 4096, 8192, 50257, 1_000_000_000),
    "quick": (8192, 4096, 4096, 8192, 50257, 100_000_000),
    "small": (33, 20, 17, 21, 300, 3001),
}

Rows = Iterator[tuple[str, Callable[[], object]]]


def milliseconds(run: Callable[[], object], runs: int, device: str) -> float:
    """The time of one of several runs."""
    if device == "cpu":
        begin = time.perf_counter()
        for _ in range(runs):
            run()
        return (time.perf_counter() - begin) * 1e3 / runs
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    for _ in range(runs):
        run()
    events[1].record()
    events[1].synchronize()
    return events[0].elapsed_time(events[1]) / runs


def measure(name: str, run: Callable[[], object], device: str, *, once: bool) -> None:
    """Prints a row, or why there is none."""
    try:
        run()  # compiles, and fills the caches
        first = milliseconds(run, 1, device)
        runs = 1 if once else max(1, min(100_000, int(60 / max(first, 1e-3))))
        times = [milliseconds(run, runs, device) for _ in range(1 if once else 7)]
    except Exception as error:  # a peer that cannot run is reported like the others
        print(json.dumps({"row": name, "error": f"{type(error).__name__}: {error}"[:200]}), flush=True)
        return
    row = {"row": name, "ms": statistics.median(times), "least": min(times), "most": max(times)}
    print(json.dumps(row), flush=True)


def compiled(function: Callable[..., torch.Tensor], device: str) -> Callable[..., torch.Tensor]:
    """Compiled for a card; on a CPU, where this only shows that the script runs, the function itself."""
    return function if device == "cpu" else torch.compile(function)


def linear(size: str, device: str) -> Rows:
    """A layer with GELU, forward, and with its gradients."""
    m, n, k, *_ = SIZES[size]
    x = torch.rand(m, k, device=device).requires_grad_()
    layer = torch.nn.Linear(k, n, device=device)
    dy = torch.rand(m, n, device=device)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return F.gelu(layer(x), approximate="tanh")

    def both(way: Callable[..., torch.Tensor]) -> None:
        x.grad = layer.weight.grad = layer.bias.grad = None
        way(x).backward(dy)

    for how, way in (("eager", forward), ("compiled", compiled(forward, device))):
        yield f"linear and gelu, {how}", partial(way, x)
        yield f"linear and gelu, forward and backward, {how}", partial(both, way)


def cross_entropy(size: str, device: str) -> Rows:
    """The loss of class numbers, with its gradient."""
    rows, classes = SIZES[size][3:5]
    logits = torch.rand(rows, classes, device=device).requires_grad_()
    labels = torch.arange(rows, device=device) * 7919 % classes

    def train(loss: Callable[..., torch.Tensor]) -> None:
        logits.grad = None
        loss(logits, labels).backward()

    for how, loss in (("eager", F.cross_entropy), ("compiled", compiled(F.cross_entropy, device))):
        yield f"cross_entropy and its gradient, {how}", partial(train, loss)


def adamw(size: str, device: str) -> Rows:
    """PyTorch's fused optimizer on one flat parameter."""
    weight = torch.rand(SIZES[size][5], device=device).requires_grad_()
    weight.grad = torch.rand_like(weight)
    yield "adamw, fused", torch.optim.AdamW([weight], fused=True).step


def main(arguments: list[str]) -> int:
    """Measures every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", nargs="?", choices=sorted(SIZES), default="quick")
    parser.add_argument("--device")
    options = parser.parse_args(arguments)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device != "cpu" else "cpu"
    print(json.dumps({"card": card, "torch": torch.__version__, "size": options.size}), flush=True)
    before = torch.get_float32_matmul_precision()
    # float32 and, for products, tf32. Each function's arrays are freed when it has ended.
    for precision, topics in (("highest", (linear, cross_entropy, adamw)), ("high", (linear,))):
        torch.set_float32_matmul_precision(precision)
        for topic in topics:
            for name, run in topic(options.size, device):
                measure(f"{name} ({precision})", run, device, once=options.size == "small")
    torch.set_float32_matmul_precision(before)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
