"""Augmentations of images: random, but determined by the seed, the epoch and the sample, on any worker."""

from __future__ import annotations

from typing import Any

from gradring.transforms._base import Layout, layout_name

__all__ = ["RandomCrop", "RandomFlip"]


class RandomFlip:
    """Mirror an image with probability ``p``: left to right, or, if ``vertical``, upside down.

    Rows of any dtype and shape (H, W), (H, W, C) or (C, H, W). ``layout`` "HWC" or "CHW" says which; "auto" takes the
    axis of 1, 3 or 4 elements for the channels and refuses to guess. The random numbers are Philox4x32-10 of (seed,
    epoch, sample, field, place in the list): the same for any number of workers. A flip happens if the first 32-bit
    word is below ``p * 2**32``.
    """

    python = False

    def __init__(self, p: float = 0.5, *, vertical: bool = False, layout: Layout = "auto") -> None:
        self.p = float(p)
        if not 0 <= self.p <= 1:
            raise ValueError(f"[RandomFlip] p must be in [0, 1], got {p}")
        self.vertical = bool(vertical)
        self.layout = layout_name("RandomFlip", layout)

    def step(self) -> tuple[Any, ...]:
        return "flip", self.p, self.vertical, self.layout


class RandomCrop:
    """Cut a window of ``size`` (height and width, or one number for both) out of the image at a random place.

    The image is surrounded by ``padding`` zeros on each side first. Layout and random numbers as for ``RandomFlip``;
    the window's top is ``(word0 * (H + 2 padding - height + 1)) >> 32``, its left likewise with word1 and the width.
    """

    python = False

    def __init__(self, size: int | tuple[int, int], padding: int = 0, *, layout: Layout = "auto") -> None:
        height, width = (size, size) if isinstance(size, int) else size
        self.height, self.width, self.padding = int(height), int(width), int(padding)
        if self.height < 1 or self.width < 1:
            raise ValueError(f"[RandomCrop] size must be at least 1 x 1, got {size}")
        if self.padding < 0:
            raise ValueError(f"[RandomCrop] padding must not be negative, got {padding}")
        self.layout = layout_name("RandomCrop", layout)

    def step(self) -> tuple[Any, ...]:
        return "crop", self.height, self.width, self.padding, self.layout
