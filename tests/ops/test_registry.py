"""Tests of every op of the registry and of every eager function, without a list of either."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradring as gr
from gradring import _core
from gradring.ops._eager import SCHEMAS

FUNCTIONS = sorted(gr.ops.__all__)


def test_schemas_are_plain_data_whose_references_exist() -> None:
    assert pickle.loads(pickle.dumps(SCHEMAS)) == SCHEMAS
    for schema in SCHEMAS.values():
        names = [operand["name"] for operand in schema["operands"]]
        assert len(set(names)) == len(names)
        for operand in schema["operands"]:
            assert operand["access"] in ("read", "write", "update")
            assert bool(operand["dtypes"]) != bool(operand["dtype_of"]), operand
            assert {operand["dtype_of"], operand["shape_of"]} <= {None, *names}
        for attribute in schema["attributes"]:
            if attribute["type"] == "choice":
                assert attribute["default"] in attribute["choices"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_is(name: str) -> None:
    function: Any = getattr(gr.ops, name)
    assert type(function).__name__ == "EagerOp"
    assert function.__name__ == name
    assert ">>> " in function.__doc__
    assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_names_a_missing_an_unknown_and_a_wrong_argument(name: str) -> None:
    function: Any = getattr(gr.ops, name)
    parameters = inspect.signature(function).parameters
    first = next(iter(parameters))
    positional = sum(p.kind is not inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    with pytest.raises(TypeError, match=rf"\[{name}\] {first} is missing"):
        function()
    with pytest.raises(TypeError, match=rf"\[{name}\] got an unexpected argument 'nonsense'"):
        function(nonsense=1)
    with pytest.raises(TypeError, match=rf"\[{name}\] takes at most {positional} positional arguments"):
        function(*[np.ones(2)] * (positional + 1))
    required = {p.name: "text" for p in parameters.values() if p.default is inspect.Parameter.empty}
    with pytest.raises(TypeError, match=rf"\[{name}\] \w+ is a str"):
        function(**required)


def test_what_a_binding_names_must_exist() -> None:
    made: dict[str, Any] = {"name": "f", "positional": 0, "hidden": None, "outcome": None, "other_ranks": None}
    with pytest.raises(ValueError, match="no such op: nonsense"):
        _core.make_eager_op(op="nonsense", parameters=[], results=[], presets={}, **made)
    with pytest.raises(ValueError, match="softmax has no operand z"):
        _core.make_eager_op(op="softmax", parameters=[], results=["z"], presets={}, **made)
    with pytest.raises(ValueError, match="softmax has no attribute z"):
        _core.make_eager_op(op="softmax", parameters=[], results=["y"], presets={"z": 1}, **made)


BYTES = {
    "add": ("add", [("a", "float32", (5, 7)), ("b", "float32", (5, 7)), ("y", "float32", (5, 7))], {}, 3 * 35 * 4),
    "an update counts twice": (
        "accumulate",
        [("sum", "float64", (35,)), ("gradient", "float64", (35,)), ("finite", None, ())],
        {},
        3 * 35 * 8,
    ),
    "rows that are asked for": (
        "embedding",
        [("ids", "int64", (3,)), ("table", "float32", (1000, 8)), ("y", "float32", (3, 8))],
        {},
        3 * 8 + 2 * 3 * 8 * 4,
    ),
    "parts are read again": (
        "linear",
        [
            ("x", "float32", (4, 6)),
            ("w", "float32", (6, 3)),
            ("y", "float32", (4, 3)),
            ("parts", "float32", (2, 4, 3)),
        ],
        {},
        (24 + 18 + 12 + 2 * 24) * 4,
    ),
    "a result counts once": (
        "linear",
        [("x", "float32", (4, 6)), ("w", "float32", (6, 3)), ("y", "float32", (4, 3))],
        {},
        (24 + 18 + 12) * 4,
    ),
    "x is read twice": (
        "batch_norm",
        [("x", "float32", (9, 5)), ("y", "float32", (9, 5)), ("mean", "float32", (5,)), ("variance", "float32", (5,))],
        {"training": True},
        (3 * 45 + 10) * 4,
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_an_op_says_how_many_bytes_a_call_moves(name: str) -> None:
    op, operands, attributes, expected = BYTES[name]
    assert _core.count_bytes(op, operands, attributes) == expected


def test_no_op_has_a_cuda_kernel_where_the_module_of_device_code_is_not_loaded() -> None:
    assert not any(schema["cuda"] for schema in _core.ops())


# Ops without a CUDA kernel, and why. csrc/ops/cuda_tests/every_op_test.cu has the same list.
NO_CUDA_KERNEL = {
    "they call out of the program, into Python as a rule": {"function", "function_loss", "function_vjp"},
    "ranks of one host meet, and add planes of the host's memory": {
        "meet",
        "sum_planes",
        "sum_planes_in_place",
        "prove_sums",
        "meet_squares",
        "end_update",
        "clear_plane",
        "begin_part",
        "keep_losses",
        "merge_moments",
    },
    "workers on the CPU share parameters in the host's memory": {
        "read_shared",
        "read_shared_rows",
        "take_shared",
        "give_shared",
        "push_sgd",
        "push_sgd_rows",
    },
}


def test_every_op_has_a_cuda_kernel_or_a_reason_to_have_none() -> None:
    """The kernels' own test says the same of a build with them; this one needs no such build."""
    sources = Path(__file__).parents[2] / "csrc" / "ops"
    named = r'(?:\.op = |row_norm_(?:for|back)ward<\w+>\()"(\w+)"'
    kernels = {op for path in sources.glob("*/*_cuda.cu") for op in re.findall(named, path.read_text())}
    excused = set().union(*NO_CUDA_KERNEL.values())
    assert not kernels & excused
    assert {schema["name"] for schema in _core.ops()} - kernels <= excused
