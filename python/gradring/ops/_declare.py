"""The declaration of an op in its Python file: its derivative, its formula in NumPy, its twin in PyTorch, and inputs for the
tests that run over all ops. The schema itself is declared in ``csrc/ops/<op>/op.cc``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gradring.ir import Graph, Node
from gradring.ops._eager import SCHEMAS

__all__ = ["DECLARED", "DY", "Declaration", "Derivative", "Tape", "attributes_with_defaults", "declare"]

Named = Mapping[str, Any]
Samples = Callable[[np.random.Generator, int], Iterable[dict[str, Any]]]

DY = "d(y)"
"""In ``Derivative.reads``, stands for the gradient with respect to the op's output ``y``."""


class Tape(Protocol):
    """The interface that a derivative rule uses to add nodes to the graph's backward pass."""

    graph: Graph

    def value(self, name: str, shape: tuple[int, ...], dtype: str) -> str:
        """A new value of the graph, whose name is made unique."""

    def node(self, op: str, inputs: Mapping[str, str], outputs: Mapping[str, str], **attributes: Any) -> None:
        """Add a node."""

    def contribute(
        self, target: str, op: str, role: str, inputs: Mapping[str, str], *, effects: str = "", **attributes: Any
    ) -> None:
        """Add a node whose result ``role`` is a gradient of ``target``, if that gradient is needed."""

    def contribute_all(self, targets: Mapping[str, str], op: str, inputs: Mapping[str, str], **attributes: Any) -> None:
        """Add one node that makes gradients of several values, by its results' names, without those that are not needed."""

    def pass_on(self, target: str, gradient: str) -> None:
        """Use ``gradient`` itself as a gradient of ``target``."""


Rule = Callable[[Tape, Node, str], None]


@dataclass(frozen=True)
class Derivative:
    """The derivative of an op that one call of another op computes.

    ``op`` is that other op, ``reads`` maps its inputs to operands of this op, or to ``DY``, and ``gives`` maps inputs of
    this op to results of the other. Both ops have the attributes of the same names; ``attributes`` computes the others
    from the node's attributes and the shapes of its operands.
    """

    op: str
    reads: Mapping[str, str]
    gives: Mapping[str, str]
    attributes: Callable[[Named, Mapping[str, tuple[int, ...]]], Named] = lambda attributes, shapes: {}

    def operands(self, names: Mapping[str, str], dy: str) -> dict[str, str]:
        """The inputs of the other op, given this op's operands by role and the gradient with respect to ``y``."""
        known = {**names, DY: dy}
        return {role: known[source] for role, source in self.reads.items() if source in known}


@dataclass(frozen=True)
class Declaration:
    """The declaration of one op; see :func:`declare`."""

    op: str
    reference: Callable[..., Named] | None
    samples: Samples
    torch: Callable[..., Named] | None
    derivative: Derivative | Callable[[Named], Derivative] | None
    rule: Rule | None
    tolerance: float

    def derivative_of(self, attributes: Named) -> Derivative | None:
        """The derivative of a call with these attributes; None if a rule makes it, or if there is none."""
        return self.derivative(attributes) if callable(self.derivative) else self.derivative


def attributes_with_defaults(op: str, given: Named) -> dict[str, Any]:
    """All attributes of a call that decide what it computes: those given, and the schema's defaults."""
    attributes = [attribute for attribute in SCHEMAS[op]["attributes"] if not attribute["method"]]
    return {a["name"]: given.get(a["name"], a["default"]) for a in attributes}


DECLARED: dict[str, Declaration] = {}
"""Every declaration, by the op's name."""


def declare(
    op: str,
    *,
    reference: Callable[..., Named] | None = None,
    samples: Samples = lambda rng, rows: (),
    torch: Callable[..., Named] | None = None,
    derivative: Derivative | Callable[[Named], Derivative] | None = None,
    rule: Rule | None = None,
    tolerance: float = 100,
) -> None:
    """Declare an op. One that eager functions call needs everything; one that only programs use needs what they ask for.

    Args:
        op: the name of its schema.
        reference: the formula in NumPy, from the operands (float64) and attributes by name to the results by name.
        samples: from a random generator and a number of rows (0 included) to operands and attributes by name. Between
            them the samples try every attribute and every optional operand.
        torch: as ``reference``, on PyTorch tensors; the op of a derivative needs none, as PyTorch makes it itself.
        derivative: the other op that computes the derivative; a function of the attributes if it depends on them.
        rule: a function that adds the nodes of the derivative, where one node is not enough.
        tolerance: how many units in the last place a result may be from the reference, relative to the largest element.
    """
    if op in DECLARED:
        raise ValueError(f"[declare] {op} is declared twice")
    DECLARED[op] = Declaration(op, reference, samples, torch, derivative, rule, tolerance)
