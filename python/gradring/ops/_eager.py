"""The decorator that makes an eager function of an op: a native callable, bound to a Python signature."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from gradring import _core
from gradring.ops._gradients import Gradients

__all__ = ["SCHEMAS", "Binding", "attribute_names", "by_schema", "eager"]

F = TypeVar("F", bound=Callable[..., Any])

SCHEMAS: dict[str, dict[str, Any]] = {schema["name"]: schema for schema in _core.ops()}
"""The schema of every op, by its name: what ``csrc/ops/<op>/op.cc`` declares."""


@dataclass(frozen=True)
class Binding:
    """The native description of an eager function, which is its attribute ``binding``.

    ``parameters`` has each parameter's name, kind, whether it is required, and the operands and attributes it gives.
    """

    op: str
    parameters: tuple[tuple[str, str, bool, list[str]], ...]
    results: tuple[str, ...]
    presets: Mapping[str, Any]
    hidden: str | None = None
    outcome: str | None = None
    other_ranks: Callable[..., Any] | None = None


def eager(
    op: str,
    *,
    results: tuple[str, ...] = ("y",),
    names: Mapping[str, str | tuple[str, str]] | None = None,
    presets: Mapping[str, Any] | None = None,
    hidden: str | None = None,
    outcome: str | None = None,
    other_ranks: Callable[..., Any] | None = None,
    gradients: Gradients | None = None,
) -> Callable[[F], F]:
    """Replace a function, of which only the signature and the docstring are used, by a native callable for ``op``.

    A parameter is an operand or an attribute of the op by its name. ``names`` maps a parameter to an operand or attribute of
    another name, to an operand and an attribute (an array or a number may be given), or to two attributes (a pair of
    numbers is given). ``out`` receives the results, ``axis`` is the axis that the op works along, ``dtype`` the dtype of
    results that may be of another one than the operands, and ``need_<result>`` says whether a result is wanted.

    Args:
        op: the name of the schema.
        results: the operands that a call returns. With none, it returns None.
        names: where parameters have other names than the schema.
        presets: attributes that have a fixed value, or another default than the schema's.
        hidden: a small result that the op needs beside those that are returned: a loss's totals.
        outcome: the result that ``reduction="mean"`` replaces by a number.
        other_ranks: a function with the same parameters, called where an operand has a number of dimensions that the
            op does not take.
        gradients: how ``gr.check_grad`` computes the gradients, if a call of the function's vjp by the names of its
            parameters is not enough.
    """
    schema = SCHEMAS[op]
    operands = {operand["name"] for operand in schema["operands"]}
    attributes = {attribute["name"] for attribute in schema["attributes"]}

    def kind_of(parameter: str) -> tuple[str, tuple[str, ...]]:
        if parameter in ("out", "axis") or (parameter == "dtype" and "dtype" not in attributes):
            return parameter, ()
        target = (names or {}).get(parameter, parameter)
        if isinstance(target, tuple):
            return ("factor" if target[0] in operands else "pair"), target
        if target in operands:
            return "operand", (target,)
        if target in attributes:
            return "attribute", (target,)
        if target.startswith("need_") and target.removeprefix("need_") in operands:
            return "need", (target.removeprefix("need_"),)
        raise TypeError(f"[{op}] has no operand or attribute {target!r}")

    def decorate(function: F) -> F:
        parameters = []
        values = dict(presets or {})
        positional = 0
        for parameter in inspect.signature(function).parameters.values():
            kind, targets = kind_of(parameter.name)
            required = parameter.default is inspect.Parameter.empty
            parameters.append((parameter.name, kind, required, list(targets)))
            positional += parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            if kind == "attribute" and not required and parameter.default is not None:
                values[targets[0]] = parameter.default
        made = _core.make_eager_op(
            name=function.__name__,
            op=op,
            parameters=parameters,
            positional=positional,
            results=list(results),
            presets=values,
            hidden=hidden,
            outcome=outcome,
            other_ranks=other_ranks,
        )
        made.binding = Binding(op, tuple(parameters), results, dict(presets or {}), hidden, outcome, other_ranks)
        made.gradients = gradients
        return cast(F, functools.update_wrapper(made, function))

    return decorate


def attribute_names(op: str) -> list[str]:
    """The names of an op's attributes."""
    return [attribute["name"] for attribute in SCHEMAS[op]["attributes"]]


@functools.cache
def by_schema(op: str) -> Callable[..., Any]:
    """A native callable whose parameters are an op's operands, by position too, and its attributes, under their own names.
    It changes operands, and returns None."""
    operands, attributes = SCHEMAS[op]["operands"], SCHEMAS[op]["attributes"]
    taken = [(operand["name"], "operand", not operand["optional"], [operand["name"]]) for operand in operands]
    taken += [(given["name"], "attribute", given["required"], [given["name"]]) for given in attributes]
    made: Callable[..., Any] = _core.make_eager_op(
        name=op,
        op=op,
        parameters=taken,
        positional=len(operands),
        results=[],
        presets={},
        hidden=None,
        outcome=None,
        other_ranks=None,
    )
    return made
