"""The optical digits, which this package carries."""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from gradring.datasets.types import Dataset, Samples

__all__ = ["digits"]


def digits() -> Dataset:
    """1797 real handwritten digits of 8x8 pixels: 1442 to train on and 355 to test on.

    ``x`` is float32 of shape (N, 64), from 0 to 1 in sixteenths; ``y`` is int64 of shape (N,), from 0 to 9. The test
    samples are every fifth one of each digit, in the order of the original file, so every digit has its share and the
    split never changes.

    This is the test set of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49 (CC BY 4.0), in the copy that scikit-learn ships.

    >>> train, test = digits()
    >>> train.x.dtype, float(train.x.max()), len(train.x), len(test.x)
    (dtype('float32'), 1.0, 1442, 355)
    """
    with files("gradring.datasets").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        x = _unsorted(arrays["images"], arrays["labels"]).T.astype(np.float32, order="C") / np.float32(16)
        y = arrays["labels"].astype(np.int64)
    testing = np.zeros(len(y), dtype=bool)
    for digit in range(10):
        testing[np.flatnonzero(y == digit)[4::5]] = True
    return Dataset(Samples(x[~testing], y[~testing]), Samples(x[testing], y[testing]))


def _unsorted(stored: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The pixels in the order of the samples, one row per pixel.

    To take fewer bytes, the file has each row sorted: by the labels, and then by the sum of the pixels to the left and above,
    whose rows come before. Rows that this function has not filled yet count as zeros.
    """
    pixels = np.zeros_like(stored)
    for i, row in enumerate(stored):
        pixels[i, np.lexsort((pixels[i - 1] + pixels[i - 8], labels))] = row
    return pixels
