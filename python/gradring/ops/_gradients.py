"""The gradients of an eager function by its arguments, from its vjp: what ``gr.check_grad`` compares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["CONSTANT", "Gradients", "gradients_by_names"]

CONSTANT: Any = object()
"""Replaces a gradient if a function deliberately has none by an argument; for example, a loss has none by its targets."""

Gradients = Callable[[Any, list[Any], Any, Mapping[str, Any]], tuple[Any, ...]]
"""``gradients(dy, arrays, output, options)``: one gradient per array, ``CONSTANT``, or None where there is none."""


def gradients_by_names(function: Any, vjp: Any) -> Gradients:
    """Gradients from a call of a function's vjp: its first parameter is the output's gradient, ``y`` is the output, and
    all others are arguments of the function by their names."""
    inputs = list(inspect.signature(function).parameters)
    first, *others = inspect.signature(vjp).parameters.values()

    def gradients(dy: Any, arrays: list[Any], output: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
        known = {"y": output, **dict(zip(inputs, arrays, strict=False)), **options}
        given = {parameter.name: known[parameter.name] for parameter in others if parameter.name in known}
        made = vjp(**{first.name: dy if getattr(dy, "ndim", 0) else float(dy)}, **given)
        if not isinstance(made, tuple):
            return (made, *[CONSTANT] * (len(arrays) - 1))
        by_name = dict(zip(vjp.binding.results, made, strict=True))
        return tuple(by_name.get(f"d{name}", CONSTANT) for name, _ in zip(inputs, arrays, strict=False))

    return gradients
