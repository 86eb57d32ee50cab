"""Calls of any op of the registry, by the names of its schema."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradring import _core
from gradring.ops._declare import DECLARED
from gradring.ops._declare import attributes_with_defaults as attributes
from gradring.ops._eager import SCHEMAS

Named = Mapping[str, Any]

# Ops that can be called with arrays; the others work in programs alone.
OPS = [name for name, schema in SCHEMAS.items() if not schema.get("program_only")]


def operands(op: str) -> dict[str, dict[str, Any]]:
    return {operand["name"]: operand for operand in SCHEMAS[op]["operands"]}


def arrays(op: str, given: Named) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in operands(op)}


def cast(op: str, given: Named, dtype: Any) -> dict[str, Any]:
    """The same call with arrays of floats of another dtype."""

    def converted(value: Any) -> Any:
        real = isinstance(value, np.ndarray) and (value.dtype.kind == "f" or value.dtype.name == "bfloat16")
        return value.astype(dtype) if real else value

    return {name: converted(value) for name, value in given.items()}


def as_python(op: str, name: str, value: Any) -> Any:
    """An operand or attribute as Python gives it: the choice "none" is None where it stands for no choice."""
    known = {attribute["name"]: attribute["choices"] for attribute in SCHEMAS[op]["attributes"]}
    absent = isinstance(value, str) and value == "none" and known.get(name, [None])[0] == "none"
    return None if absent else value


@functools.cache
def _bound(op: str, names: tuple[str, ...], results: tuple[str, ...]) -> Callable[..., Any]:
    parameters = [(name, "operand" if name in operands(op) else "attribute", True, [name]) for name in names]
    made: Callable[..., Any] = _core.make_eager_op(
        name=op,
        op=op,
        parameters=parameters,
        positional=0,
        results=list(results),
        presets={},
        hidden=None,
        outcome=None,
        other_ranks=None,
    )
    return made


def call(op: str, given: Named, results: tuple[str, ...]) -> dict[str, Any]:
    """The results of these names; an operand that the op updates is a result too, and the array given stays as it is."""
    access = {name: operand["access"] for name, operand in operands(op).items()}
    own = {name: value.copy(order="K") if access.get(name) == "update" else value for name, value in given.items()}
    written = tuple(name for name in results if access[name] == "write")
    values = {n: as_python(op, n, v) for n, v in own.items()}
    made = _bound(op, tuple(own), written)(**values)
    found = dict(zip(written, made if len(written) > 1 else (made,), strict=True)) if written else {}
    return {name: found[name] if name in found else own[name] for name in results}


def reference(op: str, given: Named) -> dict[str, Any]:
    """What the declaration's formula gives, in float64."""
    wide = cast(op, arrays(op, given), np.float64)
    formula = DECLARED[op].reference
    assert formula is not None, f"{op} has no formula in NumPy"
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return dict(formula(**wide, **attributes(op, given)))
