"""The schemas of the ops, which ``csrc/ops/<op>/op.cc`` declares, in the form that passes and checks read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from gradring import _core
from gradring.ir import ITEM, Graph, Node
from gradring.ir.facts import ops

__all__ = [
    "Epilogue",
    "Operand",
    "Schema",
    "accepts",
    "converts",
    "dense_strides",
    "fail",
    "forward_schemas",
    "fused_update",
    "part_of",
    "schema_of",
]


class Epilogue(NamedTuple):
    """What an op can do to a result before it writes it: ``attribute`` names the activation. ``other`` is the operand that
    keeps an activation's input, or the source of a derivative."""

    attribute: str
    result: str
    other: str | None


class Part(NamedTuple):
    """An op that does only what other ops can do to their own results: ``kind`` is activation, derivative, column_sums
    or copy, and ``attribute`` names the activation. ``other`` is the source of a derivative."""

    kind: str
    attribute: str | None
    input: str
    other: str | None
    result: str


class Limit(NamedTuple):
    """Integers in the operand ``operand`` must be below the extent of an axis of the operand ``below``."""

    operand: str
    below: str
    axis: int


@dataclass(frozen=True)
class Operand:
    """One operand. ``step`` is the field of the step record that it must be. An ``undefined`` result is only memory
    that the op uses. A result that is ``column_sums_of`` another has the sums over that one's rows. ``bound`` limits a
    result's magnitude. One that is ``or_float32`` may be float32 beside operands of 16 bits."""

    name: str
    access: str
    optional: bool
    step: str | None
    undefined: bool
    column_sums_of: str | None
    bound: float
    or_float32: bool


@dataclass(frozen=True)
class Schema:
    """An op. If it is ``elementwise``, one over several arrays side by side means one for each of them. ``fuses`` are the two
    ops whose work it does: a product that makes a gradient, and the update by it."""

    name: str
    operands: Mapping[str, Operand]
    attributes: Mapping[str, Mapping[str, Any]]
    phases: tuple[str, ...]
    effects: bool
    elementwise: bool
    epilogue: Epilogue | None
    derivative_epilogue: Epilogue | None
    fuses: tuple[str, str] | None
    part: Part | None
    limit: Limit | None

    __hash__ = None  # type: ignore[assignment]  # it has mappings, so no hash agrees with ==

    @property
    def inputs(self) -> tuple[str, ...]:
        """The operands that the op reads."""
        return tuple(name for name, operand in self.operands.items() if operand.access != "write")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The operands that the op writes without reading them."""
        return tuple(name for name, operand in self.operands.items() if operand.access == "write")

    @property
    def updates(self) -> tuple[str, ...]:
        """The operands that the op reads and changes."""
        return tuple(name for name, operand in self.operands.items() if operand.access == "update")


@cache
def _schemas() -> dict[str, Schema]:
    return {given["name"]: _schema(given) for given in ops().values() if given["phases"]}


def _schema(given: Mapping[str, Any]) -> Schema:
    operands = {
        o["name"]: Operand(
            o["name"],
            o["access"],
            o["optional"],
            o["step"],
            o["undefined"],
            o["column_sums_of"],
            o["bound"],
            o["or_float32"],
        )
        for o in given["operands"]
    }
    return Schema(
        given["name"],
        operands,
        {attribute["name"]: attribute for attribute in given["attributes"]},
        tuple(given["phases"]),
        given["effects"],
        given["elementwise"],
        given["epilogue"] and Epilogue(*given["epilogue"]),
        given["derivative_epilogue"] and Epilogue(*given["derivative_epilogue"]),
        given["fuses"],
        given["part"] and Part(*given["part"]),
        given["limit"] and Limit(*given["limit"]),
    )


def schema_of(op: str) -> Schema | None:
    """The schema of an op, or None if programs have no such op."""
    return _schemas().get(op)


def forward_schemas() -> dict[str, Schema]:
    """The schemas of all ops that compute a ``y`` in the forward pass, by name."""
    return {
        name: schema
        for name, schema in sorted(_schemas().items())
        if "forward" in schema.phases and "y" in schema.outputs
    }


def part_of(node: Node, kind: str) -> Part | None:
    """The ``Part`` that describes a node, if its op does such work and nothing else; else None."""
    schema = schema_of(node.op)
    part = schema.part if schema else None
    return part if part is not None and part.kind == kind else None


def converts(node: Node) -> bool:
    """Whether a node only changes a value's dtype."""
    schema = schema_of(node.op)
    return schema is not None and "dtype" in schema.attributes and (*schema.inputs, *schema.outputs) == ("x", "y")


@cache
def fused_update(product: str, update: str) -> str | None:
    """The op that makes a gradient like ``product`` and applies it like ``update``, or None."""
    return next((name for name, schema in _schemas().items() if schema.fuses == (product, update)), None)


def operands_of(graph: Graph, node: Node) -> list[tuple[str, str | None, tuple[int, ...]]]:
    """A node's operands in the form for ``_core.check_instruction``."""
    values = ((role, graph.values[name]) for role, name in (*node.inputs.items(), *node.outputs.items()))
    return [(role, None if value.kind == "step" else value.dtype, value.shape) for role, value in values]


def dense_strides(shape: tuple[int, ...], dtype: str) -> tuple[int, ...]:
    """The strides, in bytes, of an array without gaps."""
    strides, stride = [], ITEM.get(dtype, 1)
    for extent in reversed(shape):
        strides.append(stride)
        stride *= max(extent, 1)
    return tuple(reversed(strides))


def attributes_of(node: Node) -> dict[str, Any]:
    """A node's attributes, with any number in place of a resource."""
    schema = schema_of(node.op)
    known = {} if schema is None else schema.attributes
    resources = {name for name, attribute in known.items() if attribute["type"] == "resource"}
    return {name: 0 if name in resources else value for name, value in node.attributes.items()}


def refusal(graph: Graph, node: Node) -> str:
    """Why an op refuses the shapes, dtypes or attributes of a node; empty if it does not."""
    try:
        _core.check_instruction(node.op, operands_of(graph, node), attributes_of(node))
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def accepts(graph: Graph, node: Node) -> bool:
    """Whether an op accepts the shapes, dtypes and attributes of a node."""
    return not refusal(graph, node)


def fail(number: int, node: Node, operand: str, problem: str, expected: object, got: object) -> ValueError:
    """The error for one operand of a node."""
    return ValueError(f"{place_of(number, node)}: operand {operand}: {problem}: expected {expected}, got {got}")


def place_of(number: int, node: Node) -> str:
    """The name of a node, for an error."""
    return f"[graph] node {number} ({node.op}, {node.origin})" if node.origin else f"[graph] node {number} ({node.op})"
