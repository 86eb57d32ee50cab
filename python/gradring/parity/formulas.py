"""Forward and backward passes by the formulas in NumPy that the ops declare (``gradring.ops``), one node at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradring.ir import Graph, Input, Node, Value, trace
from gradring.ops._declare import DECLARED, Declaration, attributes_with_defaults
from gradring.ops._eager import SCHEMAS

if TYPE_CHECKING:
    from gradring.nn.layer import Layer

__all__ = ["Formulas"]

Array = NDArray[Any]


class Formulas:
    """One batch through a model, in one precision. ``grads`` are the gradients of the parameters, to which each backward
    pass adds. It is the tape that an op's rule gets: it computes the nodes that the rule adds immediately.

    ``nearest_kink`` is the smallest distance of any ReLU's input from 0.
    """

    def __init__(
        self, model: Layer, params: Mapping[str, Array], grads: dict[str, Array], x: Array, dtype: str
    ) -> None:
        self.grads, self.nearest_kink = grads, float("inf")
        self._dtype = dtype
        integers = x.dtype.kind in "iu"
        self.graph, self._output = trace(model, {"x": Input(x.shape, integers)}, training=True, dtype=dtype)
        self._known: dict[str, Array] = {**params, "x": x.astype(self.graph.values["x"].dtype)}
        self._slopes: dict[str, Array] = {}  # gradients by the root of a value
        self._nodes = [node for node in self.graph.nodes if node.phase == "forward" and "y" in node.outputs]

    def forward(self) -> Array:
        """The model's output."""
        for node in self._nodes:
            self._watch(node)
            inputs = {role: self._array(name) for role, name in node.inputs.items() if not name.startswith("step.")}
            made = self._formula(node)(**inputs, **attributes_with_defaults(node.op, node.attributes))
            for role, name in node.outputs.items():
                if role in made:
                    self._keep(name, made[role])
        return self._array(self._output)

    def backward(self, slope: Array) -> None:
        """Add the gradients of the parameters, from the gradient with respect to the output."""
        self._add(self._output, slope)
        for node in reversed(self._nodes):
            y = node.outputs["y"]
            if self.graph.root(y) not in self._slopes:
                continue
            dy = self.graph.fresh(f"d({y})")
            self.value(dy, self.graph.values[y].shape, self._dtype)
            self._keep(dy, self._slopes[self.graph.root(y)])
            self._differentiate(node, dy)

    def _differentiate(self, node: Node, dy: str) -> None:
        declared = DECLARED[node.op]
        if declared.rule is not None:
            return declared.rule(self, node, dy)
        attributes = attributes_with_defaults(node.op, node.attributes)
        derivative = declared.derivative_of(attributes)
        if derivative is None:
            raise self._missing(node)
        names = {**node.inputs, **node.outputs}
        shapes = {role: self.graph.values[name].shape for role, name in names.items()}
        known = {attribute["name"] for attribute in SCHEMAS[derivative.op]["attributes"]}
        passed = {name: value for name, value in node.attributes.items() if name in known}
        passed |= derivative.attributes(attributes, shapes)
        targets = {role: node.inputs[name] for name, role in derivative.gives.items() if name in node.inputs}
        self.contribute_all(targets, derivative.op, derivative.operands(names, dy), **passed)

    # Methods that a rule calls (``ops/_declare.py``, Tape)

    graph: Graph

    def value(self, name: str, shape: tuple[int, ...], dtype: str) -> str:
        """A new value, whose name is made unique."""
        name = self.graph.fresh(name)
        self.graph = self.graph.with_value(Value(name, shape, dtype=dtype))
        return name

    def node(self, op: str, inputs: Mapping[str, str], outputs: Mapping[str, str], **attributes: Any) -> None:
        """Compute an op's results."""
        made = self._made(op, inputs, attributes)
        for role, name in outputs.items():
            self._keep(name, made[role])

    def contribute(
        self, target: str, op: str, role: str, inputs: Mapping[str, str], *, effects: str = "", **attributes: Any
    ) -> None:
        """Add the result ``role`` of an op to the gradient of ``target``."""
        self.contribute_all({role: target}, op, inputs, **attributes)

    def contribute_all(self, targets: Mapping[str, str], op: str, inputs: Mapping[str, str], **attributes: Any) -> None:
        """Add results of an op, by name, to the gradients of ``targets``."""
        made = self._made(op, inputs, attributes)
        for role, target in targets.items():
            self._add(target, made[role])

    def pass_on(self, target: str, gradient: str) -> None:
        """Add ``gradient`` to the gradient of ``target``."""
        self._add(target, self._array(gradient))

    # Arrays

    def _made(self, op: str, inputs: Mapping[str, str], attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = DECLARED[op].reference
        if reference is None:
            raise TypeError(f"[parity] op {op} has no formula in NumPy")
        arrays = {role: self._array(name) for role, name in inputs.items() if not name.startswith("step.")}
        return reference(**arrays, **attributes_with_defaults(op, attributes))

    def _array(self, name: str) -> Array:
        if name not in self._known:
            value = self.graph.values[name]
            assert value.within is not None
            self._known[name] = self._array(value.within).reshape(value.shape)
        return self._known[name]

    def _keep(self, name: str, made: Any) -> None:
        value = self.graph.values[name]
        self._known[name] = np.asarray(made, value.dtype).reshape(value.shape)

    def _add(self, target: str, gradient: Any) -> None:
        if self.graph.values[target].kind == "param":
            if target in self.grads:
                self.grads[target] += gradient
            return
        root = self.graph.values[self.graph.root(target)]
        slope = np.asarray(gradient, self._dtype).reshape(root.shape)
        self._slopes[root.name] = self._slopes[root.name] + slope if root.name in self._slopes else slope

    def _formula(self, node: Node) -> Any:
        declared: Declaration | None = DECLARED.get(node.op)
        if declared is None or declared.reference is None or "draw" in node.inputs:
            raise self._missing(node)
        return declared.reference

    def _missing(self, node: Node) -> TypeError:
        return TypeError(f"[parity] {node.origin or node.op} has no twin in NumPy")

    def _watch(self, node: Node) -> None:
        if node.attributes.get("activation") == "relu" and "x" in node.inputs:
            x = self._array(node.inputs["x"])
            self.nearest_kink = min(self.nearest_kink, float(np.abs(x).min(initial=np.inf)))
