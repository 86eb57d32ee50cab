"""Augmentations of images: random, but determined by the seed, the epoch and the sample, on any worker."""

from __future__ import annotations

from typing import Any

from gradring.arguments import flag, real, whole
from gradring.attributes import Settled
from gradring.transforms._base import Layout, layout_name

__all__ = ["RandomCrop", "RandomFlip"]


class RandomFlip(Settled):
    """Mirror an image with probability ``p``: left to right, or, if ``vertical``, upside down.

    Rows of any dtype and shape (H, W), (H, W, C) or (C, H, W). ``layout`` is "HWC" or "CHW"; "auto" finds the
    channels by an axis of 1, 3 or 4 elements, and raises if that is ambiguous. The random numbers are Philox4x32-10
    of (seed, epoch, sample, field, place in the list): the same for any number of workers. A flip happens if the
    first 32-bit word is below ``p * 2**32``.
    """

    python = False

    def __init__(self, p: float = 0.5, *, vertical: bool = False, layout: Layout = "auto") -> None:
        self.p = real("RandomFlip", "p", p, least=0, most=1)
        self.vertical = flag("RandomFlip", "vertical", vertical)
        self.layout = layout_name("RandomFlip", layout)

    def step(self) -> tuple[Any, ...]:
        return "flip", self.p, self.vertical, self.layout


class RandomCrop(Settled):
    """Cut a window of ``size`` (height and width, or one number for both) out of the image at a random place.

    The image is surrounded by ``padding`` zeros on each side first. Layout and random numbers are those of
    ``RandomFlip``; the window's top is ``(word0 * (H + 2 padding - height + 1)) >> 32``, its left likewise with word1
    and the width.
    """

    python = False

    def __init__(self, size: int | tuple[int, int], padding: int = 0, *, layout: Layout = "auto") -> None:
        sizes = size if isinstance(size, (tuple, list)) else (size, size)
        if len(sizes) != 2:
            raise ValueError(f"[RandomCrop] size must be an int, or a height and a width, got {size}")
        self.height, self.width = (whole("RandomCrop", "size", extent, 1) for extent in sizes)
        self.padding = whole("RandomCrop", "padding", padding, 0)
        self.layout = layout_name("RandomCrop", layout)

    def step(self) -> tuple[Any, ...]:
        return "crop", self.height, self.width, self.padding, self.layout
