"""Flags of eager ops: bools, NumPy's bools, 0 and 1, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradring as gr
from gradring.ops._declare import DECLARED
from gradring.ops._eager import SCHEMAS
from op_calls import OPS, call

FLAGS = [(op, a["name"]) for op in OPS for a in SCHEMAS[op]["attributes"] if a["type"] == "flag"]
every_flag = pytest.mark.parametrize(("op", "flag"), FLAGS)
BAD: list[Any] = ["no", "", [], [True], None, 2, -1, 2**70, 0.0, 1.0, float("nan"), np.int64(2), np.float32(1)]
BAD += [np.array([True]), np.array([1, 2]), np.zeros(0, bool), object(), {}]
X = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)
EAGER = [
    ("matmul", "trans_a", lambda flag: gr.ops.matmul(X, X, trans_a=flag)),
    ("matmul", "trans_b", lambda flag: gr.ops.matmul(X, X, trans_b=flag)),
    ("linear_vjp", "need_dx", lambda flag: gr.ops.linear_vjp(X[:, :2], X, X[:2].T.copy(), need_dx=flag)),
    (
        "batch_norm",
        "training",
        lambda flag: gr.ops.batch_norm(X, X[0], X[1], X[2].copy(), np.abs(X[3]), training=flag),
    ),
]


def with_flag(op: str, flag: str) -> dict[bool, dict[str, Any]]:
    """Samples of a call by the value of the flag, on which the shapes and the operands depend."""
    samples = DECLARED[op].samples(np.random.default_rng(3), 5)
    return {sample[flag]: sample for sample in samples if flag in sample}


@every_flag
def test_every_kind_of_bool_means_the_same(op: str, flag: str) -> None:
    outputs = tuple(o["name"] for o in SCHEMAS[op]["operands"] if o["access"] != "read" and not o["optional"])
    given: dict[bool, Any] = {True: [np.True_, 1, np.int64(1), np.array(True)], False: [np.False_, 0, np.uint8(0)]}
    for truth, sample in with_flag(op, flag).items():
        others = given[truth]
        want = call(op, {**sample, flag: truth}, outputs)
        for other in others:
            got = call(op, {**sample, flag: other}, outputs)
            assert all(np.array_equal(got[name], want[name], equal_nan=True) for name in outputs), (truth, other)


@every_flag
def test_anything_else_is_refused_by_name(op: str, flag: str) -> None:
    sample = next(iter(with_flag(op, flag).values()))
    for bad in BAD:
        with pytest.raises(TypeError, match=rf"^\[{op}\] {flag} must be True or False, got"):
            call(op, {**sample, flag: bad}, ())


@pytest.mark.parametrize(("op", "flag", "use"), EAGER, ids=[f"{op}-{flag}" for op, flag, _ in EAGER])
def test_the_functions_refuse_them_too(op: str, flag: str, use: Any) -> None:
    for bad in BAD:
        with pytest.raises(TypeError, match=rf"^\[{op}\] {flag} must be True or False, got"):
            use(bad)
