"""Fashion-MNIST, from a copy on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gradring.datasets.idx import read_idx
from gradring.datasets.types import Dataset, Samples

__all__ = ["fashion_mnist"]

# Debian's package dataset-fashion-mnist puts the files here.
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(folder: str | os.PathLike[str] | None = None, *, dtype: DTypeLike = np.float32) -> Dataset:
    """70 000 pictures of clothes of 28x28 pixels: 60 000 to train on and 10 000 to test on, in the original split.

    ``x`` has shape (N, 784): float32 or float64 from 0 to 1, or the original bytes with ``dtype="uint8"``; ``y`` is
    int64 from 0 to 9. The four IDX files (``train-images-idx3-ubyte`` and so on, with or without ``.gz``) are read
    from ``folder``, or from ``/usr/share/datasets/fashion-mnist``, where Debian's package ``dataset-fashion-mnist``
    puts them. A missing file raises ``FileNotFoundError``, a damaged one ``ValueError``.

    Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
    2017 (MIT).
    """
    place = SYSTEM_FOLDER if folder is None else Path(folder)
    wanted = np.dtype(dtype)
    if wanted not in (np.float32, np.float64, np.uint8):
        raise ValueError(f"[fashion_mnist] dtype must be float32, float64 or uint8, got {wanted}")
    return Dataset(_samples(place, "train", wanted), _samples(place, "t10k", wanted))


def _samples(place: Path, part: str, dtype: np.dtype[Any]) -> Samples:
    image_path, label_path = _find(place, f"{part}-images-idx3-ubyte"), _find(place, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(
            f"[fashion_mnist] {image_path} is {images.shape} of {images.dtype}, expected (N, 28, 28) of uint8"
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"[fashion_mnist] {label_path} is {labels.shape} of {labels.dtype}, expected {images.shape[:1]} of uint8"
        )
    if labels.size and labels.max() > 9:
        raise ValueError(f"[fashion_mnist] {label_path} has a label {labels.max()}, expected 0 to 9")
    x = images.reshape(len(images), 784)
    if dtype != np.uint8:
        x = x.astype(dtype)
        x *= dtype.type(1 / 255)
    return Samples(x, labels.astype(np.int64))


def _find(place: Path, name: str) -> Path:
    for path in (place / f"{name}.gz", place / name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"[fashion_mnist] {place} has no {name}.gz; install it with 'apt install dataset-fashion-mnist', or give the "
        "folder that holds the four files"
    )
