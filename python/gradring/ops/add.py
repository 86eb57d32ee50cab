"""add: the sum of two arrays. Only programs use this op."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gradring.ir import Node
from gradring.ops._declare import Tape, declare

__all__: list[str] = []


def _sum(a: Any, b: Any) -> Mapping[str, Any]:
    return {"y": a + b}


def _samples(rng: np.random.Generator, rows: int) -> Iterator[dict[str, Any]]:
    yield {"a": rng.standard_normal((rows, 19)), "b": rng.standard_normal((rows, 19))}


def _rule(tape: Tape, node: Node, dy: str) -> None:
    tape.pass_on(node.inputs["a"], dy)
    tape.pass_on(node.inputs["b"], dy)


declare("add", reference=_sum, samples=_samples, torch=_sum, rule=_rule)
