"""Embedding: a row of a table for each id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradring.arguments import whole
from gradring.nn.layer import Layer, ParameterSpec

if TYPE_CHECKING:
    from gradring.ir import Builder

__all__ = ["Embedding"]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return rng.standard_normal(shape)


class Embedding(Layer):
    """``table[ids]``: integers of (batch, ...) become rows of ``features`` numbers, (batch, ..., features).

    ``weight``, the table, is (count, features) and begins with standard normal numbers, as PyTorch's does. An id that is
    not in [0, count) ends the step before any parameter changes, with a ``ValueError`` that names its sample and place.

    Args:
        count: how many ids there are.
        features: the extent of a row.

    >>> import numpy as np
    >>> from gradring import nn
    >>> layer = nn.Embedding(3, 2)
    >>> layer.params["weight"] = [[0, 1], [2, 3], [4, 5]]
    >>> layer(np.array([[2, 0]])).tolist()
    [[[4.0, 5.0], [0.0, 1.0]]]
    """

    def __init__(self, count: int, features: int) -> None:
        self.count = whole("Embedding", "count", count, 1)
        self.features = whole("Embedding", "features", features, 1)

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        return {"weight": ParameterSpec((self.count, self.features), _normal)}

    def trace(self, tracer: Builder, x: str) -> str:
        table = tracer.parameter("weight", (self.count, self.features))
        return tracer.node("embedding", {"ids": x, "table": table}, (*tracer.shape(x), self.features))

    def __repr__(self) -> str:
        return f"Embedding({self.count}, {self.features})"
