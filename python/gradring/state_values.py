"""Values of the state of a training, as files and dicts hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from gradring.arguments import whole
from gradring.losses.base import numbers

__all__ = ["apart", "class_weights_of", "count_of", "weight_of"]


def count_of(name: str, text: Any) -> int:
    if text is None:
        raise ValueError(f"{name} is missing")
    if isinstance(text, str) and not (text.isascii() and text.lstrip("-").isdecimal()):  # int() takes more than digits
        raise ValueError(f"{name} is {text[:40]!r}: must be a whole number")
    return whole("state", name, int(text) if isinstance(text, str) else text, 0, 2**63 - 1)


def weight_of(given: Any) -> float:
    weight = float(given)
    if not 0 <= weight < math.inf:  # NaN fails
        raise ValueError(f"pending_weight is {weight}: must be finite and at least 0")
    return weight


def class_weights_of(given: Any) -> tuple[float, ...]:
    return numbers("Trainer.load", "class_weights", given) if given else ()


def apart(tensors: Mapping[str, NDArray[Any]], prefix: str) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The tensors whose names begin so, without the prefix, and the others."""
    found = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    return found, {name: array for name, array in tensors.items() if not name.startswith(prefix)}
