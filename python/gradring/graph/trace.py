"""Tracing: a model and an input shape become a forward graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gradring.graph.ir import Graph, Node, Value

if TYPE_CHECKING:
    from gradring.nn.layer import Layer

__all__ = ["Tracer", "trace"]


class Tracer:
    """Collects nodes while layers run their ``trace`` methods; knows which layer it is in, for names and errors."""

    def __init__(self, training: bool) -> None:
        self.training = training
        self.graph = Graph()
        self._path: list[str] = []
        self._makers: dict[str, str] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.values[name].shape

    def maker(self, name: str) -> str:
        """What made a value, for error messages: ``"layer 0, Linear(784, 256)"``."""
        return self._makers.get(name, "the input")

    def path(self, name: str) -> str:
        """A name inside the current layer: ``"0.weight"``."""
        return ".".join([*self._path, name])

    def input(self, name: str, shape: tuple[int, ...], dtype: str = "real", field: int = 0) -> str:
        self.graph = self.graph.with_value(Value(name, shape, "input", dtype, offset=field))
        return name

    def parameter(self, name: str, shape: tuple[int, ...]) -> str:
        """The current layer's parameter; a layer that is used twice shares it."""
        path = self.path(name)
        if path not in self.graph.values:
            self.graph = self.graph.with_value(Value(path, shape, "param"))
        return path

    def node(
        self, op: str, inputs: Mapping[str, str], shape: tuple[int, ...], attributes: Mapping[str, Any] | None = None
    ) -> str:
        """Add an operation of one output ``y`` and return the output's name."""
        name = self._fresh(self.path("out"))
        self.graph = self.graph.with_value(Value(name, shape)).with_node(
            Node(op, inputs, {"y": name}, attributes or {})
        )
        return name

    def view(self, x: str, shape: tuple[int, ...]) -> str:
        """The same memory under another shape."""
        name = self._fresh(self.path("view"))
        self.graph = self.graph.with_value(Value(name, shape, self.graph.values[x].kind, within=x))
        return name

    def call(self, name: str, layer: Layer, x: str) -> str:
        """Trace a layer under a name."""
        self._path.append(name)
        try:
            y = layer.trace(self, x)
            self._makers.setdefault(y, f"layer {'.'.join(self._path)}, {layer}")
        finally:
            self._path.pop()
        return y

    def where(self, layer: Layer) -> str:
        """The current layer, for error messages."""
        return f"layer {'.'.join(self._path)}, {layer}" if self._path else str(layer)

    def _fresh(self, name: str) -> str:
        if name not in self.graph.values:
            return name
        number = 2
        while f"{name}~{number}" in self.graph.values:
            number += 1
        return f"{name}~{number}"


def trace(model: Layer, input_shape: tuple[int, ...], *, training: bool) -> tuple[Graph, str]:
    """The forward graph of ``model`` for a batch of ``input_shape`` (batch axis first), and its output's name."""
    if len(input_shape) < 1 or any(n < 1 for n in input_shape):
        raise ValueError(f"[trace] input shape is {input_shape}: every axis must be at least 1")
    tracer = Tracer(training)
    output = model.trace(tracer, tracer.input("x", tuple(input_shape)))
    return tracer.graph, output
