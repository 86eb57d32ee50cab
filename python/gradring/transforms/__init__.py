"""Transforms of samples, fused into the gather that fills a batch: ``gr.Loader(..., transforms={field: [...]})``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradring.planned import getter
from gradring.transforms._base import Transform
from gradring.transforms._functions import Native, Python
from gradring.transforms._images import RandomCrop, RandomFlip
from gradring.transforms._numbers import Cast, Normalize, OneHot, Scale
from gradring.transforms._plan import plan

__all__ = [
    "Cast",
    "Native",
    "Normalize",
    "OneHot",
    "Python",
    "RandomCrop",
    "RandomFlip",
    "Scale",
    "Transform",
    "plan",
]

if not TYPE_CHECKING:
    __getattr__ = getter("gradring.transforms")
