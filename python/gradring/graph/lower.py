"""Lowering: turns nodes into native instructions. Operands and attributes keep their names; the schema of the op
(``csrc/ops/<op>/op.cc``) says what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gradring import _core
from gradring.graph.schema import Schema, schema_of
from gradring.ir import Node

__all__ = ["Instruction", "Resource", "Tensor", "lower"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An operand: a value, and where it lies. ``buffer`` is a number in the plan, or -1 for a field of the step record;
    ``offset`` and ``strides`` are in bytes."""

    value: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    offset: int
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return self.value if self.buffer < 0 else f"{self.value} {self.shape}"


@dataclass(frozen=True, slots=True)
class Resource:
    """An entry of a program's table: what ``owner`` makes for one op on arrays of these shapes and dtypes."""

    owner: Any
    op: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    def native(self) -> Any:
        """The native object."""
        return self.owner.callback(self.op, self.shapes, self.dtypes)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One native instruction. An attribute that is a resource is a number in the plan's table."""

    op: str
    operands: Mapping[str, Tensor]
    attributes: Mapping[str, Any]
    when: str = "always"  # in which micro-batches of an update it runs
    origin: str = ""  # the layer it comes from

    __hash__ = None  # type: ignore[assignment]  # it has mappings, so no hash agrees with ==

    def native(self) -> tuple[str, list[tuple[Any, ...]], dict[str, Any], str, str]:
        """The instruction in the form that ``_core.Engine.add`` takes."""
        operands: list[tuple[Any, ...]] = [
            (name, t.buffer, t.offset, t.dtype, t.shape, t.strides) for name, t in self.operands.items()
        ]
        return self.op, operands, dict(self.attributes), self.when, self.origin

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return int(_core.count_flops(self.op, self._described(), dict(self.attributes)))

    @property
    def traffic(self) -> int:
        """Bytes that go between memory and cold caches, as the op's schema counts them."""
        return int(_core.count_bytes(self.op, self._described(), dict(self.attributes)))

    @property
    def is_loss(self) -> bool:
        """Whether it is part of the loss of a step."""
        schema = schema_of(self.op)
        return schema is not None and "loss" in schema.phases

    def limit(self) -> int | None:
        """The number that the labels or ids that it reads must be below; None if it reads none."""
        schema = schema_of(self.op)
        limit = schema.limit if schema else None
        return None if limit is None else self.operands[limit.below].shape[limit.axis]

    @property
    def least_rows(self) -> int:
        """How many rows it requires of a batch; 0 if it requires none."""
        return int(self.attributes.get("least_rows", 0))

    @property
    def refuses(self) -> bool:
        """Whether it refuses some batches, so that an error may name it."""
        return self.limit() is not None or self.least_rows > 0

    def _described(self) -> list[tuple[Any, ...]]:
        return [(name, None if t.buffer < 0 else t.dtype, t.shape) for name, t in self.operands.items()]

    def __str__(self) -> str:
        schema = schema_of(self.op)
        written = schema.outputs if schema is not None else ()
        read = [f"{name}={t}" for name, t in self.operands.items() if name not in written]
        made = [f"{name}={t}" for name, t in self.operands.items() if name in written]
        return f"{', '.join(read)} -> {', '.join(made)}" if made else ", ".join(read)


def lower(node: Node, tensor: Callable[[str], Tensor], resources: list[Resource]) -> Instruction:
    """The instruction for a node. ``tensor`` gives a value as an operand, by its name. Other things that the node needs,
    such as functions, are added to ``resources``."""
    schema = schema_of(node.op)
    if schema is None:
        raise NotImplementedError(f"[lower] {node.origin or 'the graph'}: there is no op {node.op!r}")
    names = {**node.inputs, **node.outputs}
    for role in names:
        if role not in schema.operands:
            raise ValueError(f"[{node.op}] {node.origin}: has no operand {role!r}: expected {tuple(schema.operands)}")
    operands = {role: tensor(names[role]) for role in schema.operands if role in names}
    return Instruction(node.op, operands, _attributes(schema, node, operands, resources), node.when, node.origin)


def _attributes(
    schema: Schema, node: Node, operands: Mapping[str, Tensor], resources: list[Resource]
) -> dict[str, Any]:
    found = dict(node.attributes)
    for name, attribute in schema.attributes.items():
        if attribute["type"] == "resource" and name in found:
            *arrays, _ = operands.values()  # the last is the answer
            shapes = tuple(tensor.shape for tensor in arrays)
            dtypes = tuple(tensor.dtype for tensor in arrays)
            resources.append(Resource(found[name], node.op, shapes, dtypes))
            found[name] = len(resources) - 1
    return found
