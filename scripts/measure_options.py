"""Print what an option of a trainer costs: the time of ``fit`` with it, as a ratio to the plain trainer's.

All trainers of a network run in turn, and the turns are repeated; the ratio is the median over the turns of a trainer's time
to that of the plain one in the same turn, so that a slower stretch of the machine falls on both. A second plain trainer
shows what the measurement itself is worth.

python scripts/measure_options.py [--turns 41] [--only groups]
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise
from typing import Any

import numpy as np

import gradring as gr
from gradring.optim import Adam, AdamW, Lion, RMSprop

NETWORKS = {"64-32-10, batch 64": ((64, 32, 10), 64, 64), "784-256-128-10, batch 128": ((784, 256, 128, 10), 128, 8)}
NO_DECAY = [{"params": "*.bias", "weight_decay": 0.0}]
RATES = [{"params": "0.*", "lr": 1e-4}, {"params": "2.*", "lr": 3e-4}]
PLAIN = "plain AdamW"
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "plain AdamW again": {},
    "groups: no decay on biases": {"optimizer": AdamW(1e-3, groups=NO_DECAY)},
    "groups: rates per layer": {"optimizer": AdamW(1e-3, groups=RATES)},
    "frozen first layer": {"frozen": "0.*"},
    "frozen last layer": {"frozen": "[24].*"},
    "schedule: a function": {"optimizer": AdamW(lambda step: 1e-3 / (1 + 1e-6 * step))},
    "Adam, amsgrad": {"optimizer": Adam(1e-3, amsgrad=True)},
    "RMSprop": {"optimizer": RMSprop(1e-3)},
    "Lion": {"optimizer": Lion(1e-4)},
    "sample weights": {},
    "class weights": {"class_weight": [1 + 0.1 * label for label in range(10)]},
    "label smoothing": {"loss": gr.losses.CrossEntropy(label_smoothing=0.1)},
    "soft labels": {},
}


def model(widths: tuple[int, ...]) -> gr.nn.Sequential:
    layers: list[gr.nn.Layer] = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [gr.nn.Linear(inputs, outputs), *([gr.nn.ReLU()] if number < len(widths) - 2 else [])]
    return gr.nn.Sequential(*layers)


def measure(widths: tuple[int, ...], batch: int, batches: int, turns: int, names: list[str]) -> dict[str, list[float]]:
    """Seconds of each option's epochs, turn by turn."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch * batches, widths[0])).astype(np.float32)
    y = rng.integers(0, widths[-1], batch * batches)
    given: dict[str, tuple[Any, ...]] = {
        "sample weights": (x, y, rng.random(len(x), np.float32)),
        "soft labels": (x, np.eye(widths[-1], dtype=np.float32)[y]),
    }
    trainers = {name: gr.Trainer(model(widths), threads=1, **OPTIONS[name]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns + 2):  # the first ones plan and try
        order = names if turn % 2 else names[::-1]
        for name in order:
            began = time.perf_counter()
            trainers[name].fit(given.get(name, (x, y)), epochs=5, batch_size=batch, verbose=False)
            if turn > 1:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=41)
    parser.add_argument("--only", default="", help="options whose names have this in them, beside the plain ones")
    given = parser.parse_args()
    names = [name for name in OPTIONS if name.startswith(PLAIN) or given.only in name]
    for label, (widths, batch, batches) in NETWORKS.items():
        seconds = measure(widths, batch, batches, given.turns, names)
        step = statistics.median(seconds[PLAIN]) / (5 * batches)
        print(f"{label}: a plain step takes {step * 1e6:.1f} us")
        for name, times in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(times, seconds[PLAIN], strict=True))
            print(f"  {name:32} {ratio:.3f}")


if __name__ == "__main__":
    main()
