"""The builder: layers add their operations to a forward graph through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from gradring.ir.graph import Graph
from gradring.ir.layout import Layout
from gradring.ir.nodes import Node
from gradring.ir.values import Value

__all__ = ["Builder", "trace"]


class Parameter(Protocol):
    """What the builder asks of a parameter's specification."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class Traceable(Protocol):
    """What the builder asks of a layer."""

    def trace(self, tracer: Any, x: str) -> str: ...

    def named_parameters(self) -> Mapping[str, Parameter]: ...


class Builder:
    """Collects nodes while layers run their ``trace`` methods, and knows which layer it is in.

    ``dtype`` is that of the model's arithmetic; ``layout`` says where each parameter lies.
    """

    def __init__(self, training: bool, *, dtype: str = "float32", layout: Layout | None = None) -> None:
        self.training = training
        self.dtype = dtype
        self.layout = layout
        self.graph = Graph()
        self._path: list[str] = []
        self._layers: list[Any] = []
        self._makers: dict[str, str] = {}
        if layout is not None:
            self.graph = self.graph.with_value(Value("parameters", (layout.elements,), "param", dtype))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value."""
        return self.graph.values[name].shape

    def maker(self, name: str) -> str:
        """What made a value, for error messages: ``"layer 0, Linear(784, 256)"``."""
        return self._makers.get(name, "the input")

    def path(self, name: str) -> str:
        """A name inside the current layer: ``"0.weight"``."""
        return ".".join([*self._path, name])

    def input(self, name: str, shape: tuple[int, ...], dtype: str | None = None, field: int = 0) -> str:
        """Add a field of the batch."""
        value = Value(name, shape, "input", dtype or self.dtype, offset=field)
        self.graph = self.graph.with_value(value)
        return name

    def parameter(self, name: str, shape: tuple[int, ...]) -> str:
        """The current layer's parameter: a view of the flat arena. A layer that is used twice shares it."""
        path = self.path(name)
        if path not in self.graph.values:
            value = Value(path, shape, "param", self.dtype)
            if self.layout is not None:
                if path not in self.layout.offsets:
                    raise ValueError(f"[trace] {self.origin()} reads parameter {path!r}, which the model does not have")
                value = replace(value, within="parameters", offset=self.layout.offsets[path])
            self.graph = self.graph.with_value(value)
        return path

    def node(
        self,
        op: str,
        inputs: Mapping[str, str],
        shape: tuple[int, ...],
        attributes: Mapping[str, Any] | None = None,
        *,
        effects: str = "",
        also: Mapping[str, Value] | None = None,
    ) -> str:
        """Add an operation of one output ``y`` and return the output's name.

        ``also`` are further outputs by role, whose names are made unique; ``effects`` is what the node does beside.
        """
        name = self.graph.fresh(self.path("out"))
        self.graph = self.graph.with_value(Value(name, shape, dtype=self.dtype))
        outputs = {"y": name}
        for role, value in (also or {}).items():
            outputs[role] = self.graph.fresh(f"{name}.{role}")
            self.graph = self.graph.with_value(replace(value, name=outputs[role]))
        node = Node(op, dict(inputs), outputs, dict(attributes or {}), effects=effects, origin=self.origin())
        self.graph = self.graph.with_node(node)
        return name

    def draw(self) -> str:
        """The number of this forward pass, as a value."""
        self.graph = self.graph.with_step("draw")
        return "step.draw"

    def view(self, x: str, shape: tuple[int, ...]) -> str:
        """The same memory under another shape."""
        name = self.graph.fresh(self.path("view"))
        of = self.graph.values[x]
        self.graph = self.graph.with_value(Value(name, shape, of.kind, of.dtype, within=x))
        return name

    def call(self, name: str, layer: Traceable, x: str) -> str:
        """Trace a layer under a name."""
        self._path.append(name)
        self._layers.append(layer)
        try:
            y = layer.trace(self, x)
            self._makers.setdefault(y, f"layer {'.'.join(self._path)}, {layer}")
        finally:
            self._path.pop()
            self._layers.pop()
        return y

    def whole(self, model: Traceable, x: str) -> str:
        """Trace the model itself, whose path is empty."""
        self._layers.append(model)
        try:
            return model.trace(self, x)
        finally:
            self._layers.pop()

    def origin(self) -> str:
        """The current layer as nodes name it: ``"0.Linear(784, 256)"``."""
        layer = str(self._layers[-1]) if self._layers else "model"
        return ".".join([*self._path, layer])

    def where(self, layer: Traceable) -> str:
        """The current layer, for error messages."""
        return f"layer {'.'.join(self._path)}, {layer}" if self._path else str(layer)


def trace(
    model: Traceable,
    input_shape: tuple[int, ...],
    *,
    training: bool,
    dtype: str = "float32",
    layout: Layout | None = None,
) -> tuple[Graph, str]:
    """The forward graph of ``model`` for a batch of ``input_shape`` (batch axis first), and its output's name.

    ``layout`` says where the parameters lie; without it they lie one after another.
    """
    if len(input_shape) < 1 or any(n < 1 for n in input_shape):
        raise ValueError(f"[trace] input shape is {input_shape}: every axis must be at least 1")
    if layout is None:
        layout = Layout.of({name: tuple(spec.shape) for name, spec in model.named_parameters().items()})
    builder = Builder(training, dtype=dtype, layout=layout)
    output = builder.whole(model, builder.input("x", tuple(input_shape)))
    return builder.graph, output
