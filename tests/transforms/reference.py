"""The transforms in plain NumPy: slow, obvious, and the same bits."""

from __future__ import annotations

import numpy as np


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011) with Python's integers."""
    c, k = list(counter), list(key)
    mask = 0xFFFFFFFF
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(product1 >> 32) ^ c[1] ^ k[0], product1 & mask, (product0 >> 32) ^ c[3] ^ k[1], product0 & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def words(seed, epoch, sample, field, index):
    mask = 0xFFFFFFFF
    counter = [sample & mask, sample >> 32, epoch & mask, 0x4C000000 + (field << 12) + index]
    return philox(counter, [seed & mask, (seed >> 32) ^ (epoch >> 32)])


def scale(x, a, b=0.0):
    x = x if x.dtype.name in ("float32", "float64") else x.astype(np.float32)
    y = x * x.dtype.type(a)
    return y if b == 0 else y + x.dtype.type(b)


def _along(x, values, layout):
    values = np.asarray(values, x.dtype).ravel()
    if values.size == 1:
        return values.reshape(())
    if x.ndim == 3 and layout == "CHW":
        return values.reshape(-1, 1, 1)
    return values.reshape(x.shape) if values.size == x.size else values


def normalize(x, mean, std, layout="HWC"):
    x = x if x.dtype.name in ("float32", "float64") else x.astype(np.float32)
    return (x - _along(x, mean, layout)) / _along(x, std, layout)


def one_hot(x, classes, dtype=np.float32):
    return np.eye(classes, dtype=dtype)[x.astype(np.int64)]


def _axes(x, layout):
    return (1, 2) if x.ndim == 3 and layout == "CHW" else (0, 1)


def flip(x, word, p, vertical, layout="HWC"):
    return np.flip(x, _axes(x, layout)[0 if vertical else 1]) if word[0] < int(p * 2**32) else x


def crop(x, word, height, width, padding, layout="HWC"):
    rows, columns = _axes(x, layout)
    pads = [(padding, padding) if axis in (rows, columns) else (0, 0) for axis in range(x.ndim)]
    x = np.pad(x, pads)
    top = (word[0] * (x.shape[rows] - height + 1)) >> 32
    left = (word[1] * (x.shape[columns] - width + 1)) >> 32
    cut = [slice(None)] * x.ndim
    cut[rows], cut[columns] = slice(top, top + height), slice(left, left + width)
    return x[tuple(cut)]


def apply(row, steps, *, seed, epoch, sample, field=0, layout="HWC"):
    """steps: what the transforms' own step() gives."""
    for index, (kind, *rest) in enumerate(steps):
        word = words(seed, epoch, sample, field, index)
        if kind == "cast":
            row = row.astype(rest[0])
        elif kind == "scale":
            row = scale(row, *rest)
        elif kind == "normalize":
            row = normalize(row, rest[0], rest[1], layout)
        elif kind == "one_hot":
            row = one_hot(row, *rest)
        elif kind == "flip":
            row = flip(row, word, rest[0], rest[1], layout)
        else:
            row = crop(row, word, *rest[:3], layout)
    return row
