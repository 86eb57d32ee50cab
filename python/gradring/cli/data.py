"""The data that ``gradring train`` trains on."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradring.datasets import Samples, digits, fashion_mnist
from gradring.loader import load_npy

__all__ = ["Task", "task"]


class Task(NamedTuple):
    """What to train on, and with which settings unless others are asked for."""

    name: str
    train: Samples
    test: Samples
    loss: str
    outputs: int
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float


def task(options: argparse.Namespace) -> Task:
    """The embedded digits, Fashion-MNIST, or the user's own arrays."""
    if options.data is not None and (options.x or options.y):
        raise ValueError(f"[train] give either {options.data} or --x and --y, not both")
    if options.data == "digits":
        return Task("digits", *digits(), "cross_entropy", 10, (256,), 40, 32, 3e-3, 1.0)
    if options.data == "fashion-mnist":
        return Task(
            "fashion-mnist", *fashion_mnist(options.folder), "cross_entropy", 10, (256, 128), 10, 64, 1e-3, 1e-2
        )
    if not (options.x and options.y):
        raise ValueError("[train] give digits, fashion-mnist, or your own arrays with --x X.npy --y y.npy")
    return _own(options.x, options.y, options.test_share, options.seed)


def _own(x_path: Path, y_path: Path, share: float, seed: int) -> Task:
    x, y = _samples(x_path), _labels(y_path)
    if len(x) != len(y):
        raise ValueError(f"[train] {x_path} has {len(x)} samples, {y_path} has {len(y)}")
    count = round(len(x) * share)
    if not 0 < share < 1 or count < 1 or count >= len(x):
        raise ValueError(
            f"[train] --test-share must leave samples for both training and testing, got {share} of {len(x)}"
        )
    order = np.random.default_rng(seed).permutation(len(x))
    parts = [
        Samples(x[np.sort(order[count:])], y[np.sort(order[count:])]),
        Samples(x[np.sort(order[:count])], y[np.sort(order[:count])]),
    ]
    classes = y.dtype.kind in "iu"
    outputs = int(y.max()) + 1 if classes else y.shape[1]
    loss = "cross_entropy" if classes else "mse"
    return Task(
        x_path.stem, parts[0], parts[1], loss, max(outputs, 2) if classes else outputs, (128,), 20, 64, 1e-3, 1e-2
    )


def _load(path: Path) -> NDArray[Any]:
    array = load_npy("train", path)
    if array.ndim == 0 or not array.size:
        raise ValueError(f"[train] {path} is {array.shape}: there must be at least one sample")
    return array


def _samples(path: Path) -> NDArray[Any]:
    array = _load(path)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"[train] {path} must hold numbers, got dtype {array.dtype}")
    whole = array.dtype == np.uint8
    wanted = np.float64 if array.dtype == np.float64 else np.float32
    x: NDArray[Any] = np.ascontiguousarray(array.reshape(len(array), -1), wanted)
    return np.divide(x, 255, out=x) if whole else x


def _labels(path: Path) -> NDArray[Any]:
    array = _load(path)
    if array.dtype.kind in "iub":
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise ValueError(f"[train] {path} is {array.shape}; int labels must be (N,)")
        labels = array.astype(np.int64)
        if labels.min() < 0:
            raise ValueError(f"[train] {path} has a label {labels.min()}, expected 0 or more")
        return labels
    if array.dtype.kind == "f" and array.ndim <= 2:
        return np.ascontiguousarray(array.reshape(len(array), -1))
    raise TypeError(
        f"[train] {path} must hold int labels (N,) or float targets (N, k), got {array.shape} of {array.dtype}"
    )


def check_folder(folder: Path) -> None:
    """Make the output folder, and see before the training that it can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".gradring-{os.getpid()}"
    probe.touch()
    probe.unlink()
