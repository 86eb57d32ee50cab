"""column_sums: the sums over the rows of an array. Only programs use this op."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gradring.ops._declare import declare

__all__: list[str] = []


def _sums(x: Any) -> Mapping[str, Any]:
    return {"y": x.reshape(-1, x.shape[-1]).sum(0)}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    yield {"x": rng.standard_normal((rows, 19))}


declare("column_sums", reference=_sums, samples=_samples, torch=_sums)
