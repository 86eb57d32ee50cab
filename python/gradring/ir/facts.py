"""What the builder knows of an op from its schema, which ``csrc/ops/<op>/op.cc`` declares."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from gradring import _core

__all__ = ["ids_of", "integer_roles", "ops"]


@cache
def ops() -> dict[str, Mapping[str, Any]]:
    """The schemas of all ops, by name."""
    return {given["name"]: given for given in _core.ops()}


@cache
def integer_roles(op: str) -> frozenset[str]:
    """The operands of an op that it reads as integers and never as floats.

    >>> sorted(integer_roles("embedding"))
    ['ids']
    """
    return frozenset(
        operand["name"]
        for operand in ops().get(op, {"operands": ()})["operands"]
        if operand["access"] == "read"
        and operand["step"] is None
        and "int64" in operand["dtypes"]
        and not any(dtype.startswith(("float", "bfloat")) for dtype in operand["dtypes"])
    )


@cache
def ids_of(op: str) -> str | None:
    """The operand with the ids of an op whose result ``fault`` says which of them is no row; None for other ops.

    >>> ids_of("embedding")
    'ids'
    """
    given = ops().get(op)
    if given is None or given["limit"] is None:
        return None
    has_fault = any(o["name"] == "fault" and o["access"] == "write" for o in given["operands"])
    return str(given["limit"][0]) if has_fault else None
