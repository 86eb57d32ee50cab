"""Training runs whose every bit is recorded: the models, their data and what is hashed.

Run as a script, it prints the hashes at the instruction set that ``GRADRING_ISA`` names, as JSON:

    GRADRING_ISA=avx2 python tests/bits/models.py
"""

import hashlib
import json
from itertools import pairwise

import numpy as np

import gradring as gr
from gradring import nn, optim

STEPS = 50


def numbers(shape, seed):
    """Numbers in [-1, 1) by integer arithmetic alone, so that no library's generator decides the bits."""
    count = int(np.prod(shape))
    state = np.arange(count, dtype=np.uint64) + np.uint64(seed * 1_000_003 + 1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finalizer of SplitMix64
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    state ^= state >> np.uint64(31)
    return ((state >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0).reshape(shape)


def mlp(*sizes, activation=nn.ReLU):
    layers = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), activation()]
    return nn.Sequential(*layers[:-1])


def sgd(**options):
    return lambda: optim.SGD(0.05, **options)


def adam():
    return optim.Adam(1e-2)


def adamw():
    return optim.AdamW(1e-2, weight_decay=0.1)


def grouped():
    groups = [
        {"params": "*.bias", "weight_decay": 0.0},
        {"params": "2.weight", "lr": optim.schedule.linear(0.1, 0.0, 40)},
    ]
    return optim.AdamW(1e-2, weight_decay=0.1, amsgrad=True, groups=groups)


def rmsprop():
    groups = [{"params": "0.*", "momentum": 0.0, "lr": 1e-3}]
    return optim.RMSprop(1e-2, momentum=0.9, centered=True, weight_decay=1e-3, groups=groups)


def lion():
    return optim.Lion(1e-3, weight_decay=0.1)


# name: (model, rows, features, outputs, loss, optimizer, options of the trainer)
RUNS = {
    "small mlp, sgd": (lambda: mlp(64, 32, 10), 32, 64, 10, "cross_entropy", sgd(), {}),
    "momentum": (lambda: mlp(64, 32, 10), 32, 64, 10, "cross_entropy", sgd(momentum=0.9), {}),
    "nesterov, decay": (
        lambda: mlp(30, 17, 5),
        19,
        30,
        5,
        "cross_entropy",
        sgd(momentum=0.9, nesterov=True, weight_decay=1e-3),
        {},
    ),
    "adam": (lambda: mlp(64, 32, 10), 32, 64, 10, "cross_entropy", adam, {}),
    "adamw": (lambda: mlp(33, 65, 7), 21, 33, 7, "cross_entropy", adamw, {}),
    "wide mlp": (lambda: mlp(784, 128, 10), 64, 784, 10, "cross_entropy", sgd(momentum=0.9), {}),
    "halves of k": (lambda: mlp(784, 256, 128, 10), 64, 784, 10, "cross_entropy", adam, {}),
    "gelu": (lambda: mlp(48, 96, 96, 12, activation=nn.GELU), 40, 48, 12, "cross_entropy", adam, {}),
    "silu": (lambda: mlp(48, 80, 12, activation=nn.SiLU), 40, 48, 12, "mse", sgd(momentum=0.5), {}),
    "tanh": (lambda: mlp(20, 40, 20, 3, activation=nn.Tanh), 15, 20, 3, "mse", adam, {}),
    "sigmoid, binary": (lambda: mlp(20, 40, 4, activation=nn.Sigmoid), 33, 20, 4, "binary_cross_entropy", adam, {}),
    "float64": (lambda: mlp(31, 63, 9), 29, 31, 9, "cross_entropy", adamw, {"dtype": "float64"}),
    "float64, gelu": (lambda: mlp(31, 63, 9, activation=nn.GELU), 29, 31, 9, "mse", sgd(), {"dtype": "float64"}),
    "dropout": (
        lambda: nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, 10)),
        32,
        64,
        10,
        "cross_entropy",
        adam,
        {"seed": 5},
    ),
    "residual": (
        lambda: nn.Sequential(nn.Linear(24, 24), nn.Residual(mlp(24, 48, 24)), nn.Tanh(), nn.Linear(24, 6)),
        17,
        24,
        6,
        "cross_entropy",
        sgd(momentum=0.9),
        {},
    ),
    "clipping": (lambda: mlp(64, 32, 10), 32, 64, 10, "cross_entropy", adam, {"clip_norm": 0.05}),
    "accumulation": (lambda: mlp(64, 32, 10), 16, 64, 10, "cross_entropy", adam, {"accumulate": 3}),
    "accumulation, clipping": (
        lambda: mlp(40, 50, 8),
        16,
        40,
        8,
        "mse",
        sgd(momentum=0.9),
        {"accumulate": 2, "clip_norm": 0.1},
    ),
    "no bias": (
        lambda: nn.Sequential(nn.Linear(50, 70, bias=False), nn.ReLU(), nn.Linear(70, 11, bias=False)),
        27,
        50,
        11,
        "cross_entropy",
        adamw,
        {},
    ),
    "one row, one output": (lambda: mlp(13, 9, 1), 1, 13, 1, "mse", sgd(), {}),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(30, 45), nn.LayerNorm(45), nn.GELU(), nn.Linear(45, 7), nn.LayerNorm(7)),
        21,
        30,
        7,
        "cross_entropy",
        adamw,
        {},
    ),
    "rms norm": (
        lambda: nn.Sequential(nn.RMSNorm(30), nn.Linear(30, 45), nn.RMSNorm(45), nn.ReLU(), nn.Linear(45, 7)),
        21,
        30,
        7,
        "mse",
        sgd(momentum=0.9),
        {"clip_norm": 1.0},
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(30, 45), nn.BatchNorm1d(45), nn.ReLU(), nn.Linear(45, 7)),
        70,
        30,
        7,
        "cross_entropy",
        sgd(momentum=0.9),
        {},
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(50, 9), nn.Flatten(), nn.Linear(54, 10)),
        32,
        6,
        10,
        "cross_entropy",
        adam,
        {"accumulate": 2},
    ),
    "groups, frozen": (
        lambda: mlp(40, 33, 20, 6),
        23,
        40,
        6,
        "cross_entropy",
        grouped,
        {"frozen": ["2.bias", "4.weight"]},
    ),
    "rmsprop": (lambda: mlp(40, 33, 6), 23, 40, 6, "mse", rmsprop, {}),
    "lion": (lambda: mlp(40, 33, 6), 23, 40, 6, "cross_entropy", lion, {"clip_norm": 0.5, "frozen": "0.*"}),
    "exact gelu": (lambda: mlp(31, 63, 9, activation=lambda: nn.GELU("none")), 29, 31, 9, "mse", adam, {}),
}


def inputs(name, rows, seed):
    """What a run's model reads: numbers, or ids below 50."""
    x = numbers((rows, RUNS[name][2]), seed)
    return np.floor(np.abs(x) * 50).astype(np.int64) if name == "embedding" else x.astype(dtype_of(name))


def dtype_of(name):
    return RUNS[name][6].get("dtype", "float32")


def run(name):
    """The hash of a run: its losses, final parameters and optimizer state, an evaluation and predictions."""
    make, rows, _, outputs, loss, optimizer, options = RUNS[name]
    seed = list(RUNS).index(name)
    x = inputs(name, 4 * rows, 2 * seed + 1)
    if loss == "cross_entropy":
        y = (np.arange(4 * rows) * 7 + seed) % outputs
    else:
        y = numbers((4 * rows, outputs), 2 * seed + 2)
        y = (y > 0).astype(np.float64) if loss == "binary_cross_entropy" else y
    model = make()
    trainer = gr.Trainer(model, loss=loss, optimizer=optimizer(), **{"seed": 3, **options})
    dtype = dtype_of(name)
    for parameter, (key, view) in enumerate(sorted(trainer.params.items())):
        assert view.dtype == dtype, key
        view[...] = numbers(view.shape, 1000 + 50 * seed + parameter) * (2.0 / np.sqrt(view.shape[0]))
    digest = hashlib.sha256()
    for step in range(STEPS):
        rows_now = slice((step % 4) * rows, (step % 4 + 1) * rows)
        digest.update(np.float64(trainer.step(x[rows_now], y[rows_now])).tobytes())
    state = trainer.state_dict()
    for group in ("params", "optimizer"):
        for key in sorted(state[group]):
            digest.update(np.ascontiguousarray(state[group][key]).tobytes())
    digest.update(np.float64(trainer.evaluate((x, y))["loss"]).tobytes())
    digest.update(trainer.predict(x).tobytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps({name: run(name) for name in RUNS}, indent=1))
