"""Nodes: one operation each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PHASES", "WHEN", "Node"]

# The parts of a step, in their order.
PHASES = ("forward", "loss", "check", "backward", "update")

# When a node runs: in the first, a later or the last micro-batch of an update; or on one of a step's two routes:
# "bounded", if all gradients are proved finite before they are made, or "unbounded".
WHEN = ("always", "first", "later", "last", "bounded", "unbounded")


@dataclass(frozen=True)
class Node:
    """One operation. ``inputs`` and ``outputs`` map the operation's roles to names of values.

    ``updates`` lists the roles of inputs that the node changes in place. ``effects`` names what the node does besides
    writing values (it calls Python, or it ends the step): such a node may not be cloned, dropped, or moved past another
    one with effects. ``phase`` is one of ``PHASES``, ``when`` one of ``WHEN``, and ``origin`` says which layer the node
    comes from: ``"0.Linear(784, 256)"``.
    """

    op: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    updates: tuple[str, ...] = ()
    effects: str = ""
    phase: str = "forward"
    when: str = "always"
    origin: str = ""

    __hash__ = None  # type: ignore[assignment]  # it has mappings, so no hash agrees with ==

    def written(self) -> Iterator[tuple[str, str]]:
        """(role, name) of every value that the node writes or changes."""
        yield from self.outputs.items()
        for role in self.updates:
            if role in self.inputs:
                yield role, self.inputs[role]

    def names(self) -> Iterator[str]:
        """The names of all values that the node touches."""
        yield from self.inputs.values()
        yield from self.outputs.values()

    def __str__(self) -> str:
        arguments = [f"{role}={name}" for role, name in self.inputs.items()]
        arguments += [f"{key}={value!r}" for key, value in self.attributes.items()]
        made = [*self.outputs.values(), *(self.inputs[role] for role in self.updates)]
        return f"{', '.join(made)} = {self.op}({', '.join(arguments)})"
