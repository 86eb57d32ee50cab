"""Layers made of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradring.nn.layer import Layer

if TYPE_CHECKING:
    from gradring.ir import Builder

__all__ = ["Residual", "Sequential"]


def _check(container: str, number: int, layer: object) -> None:
    if isinstance(layer, (list, tuple)):
        raise TypeError(
            f"[{container}] layer {number} is a {type(layer).__name__} of layers: give them one by one, {container}(*layers)"
        )
    if not isinstance(layer, Layer):
        got = layer.__name__ + " (the class: did you forget the brackets?)" if isinstance(layer, type) else repr(layer)
        raise TypeError(f"[{container}] layer {number} must be a gradring layer, got {got}")


class Sequential(Layer):
    """Layers one after another. Parameters are named by position: ``"0.weight"``.

    >>> from gradring import nn
    >>> nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    Sequential(Linear(4, 3), ReLU(), Linear(3, 2))
    """

    shown_by_parts = True

    def __init__(self, *layers: Layer) -> None:
        for number, layer in enumerate(layers):
            _check("Sequential", number, layer)
        self.layers = layers

    def children(self) -> dict[str, Layer]:
        return {str(i): layer for i, layer in enumerate(self.layers)}

    @property
    def input_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the first layer's inputs."""
        return self.layers[0].input_names if self.layers else ("x",)

    def trace(self, tracer: Builder, *inputs: Any, **named: Any) -> str:
        names: tuple[str, ...] = inputs
        for name, layer in self.children().items():
            names = (tracer.call(name, layer, *names),)
        return names[0]

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Layer:
        return self.layers[index]

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"


class Residual(Layer):
    """``x + layer(x)``; the layer keeps the shape. Several layers become a ``Sequential``.

    He et al., "Deep Residual Learning for Image Recognition", 2016.
    """

    def __init__(self, *layers: Layer) -> None:
        for number, layer in enumerate(layers):
            _check("Residual", number, layer)
        if not layers:
            raise ValueError("[Residual] needs a layer")
        self.layer = layers[0] if len(layers) == 1 else Sequential(*layers)

    def children(self) -> dict[str, Layer]:
        return {"layer": self.layer}

    def trace(self, tracer: Builder, x: str) -> str:
        y = tracer.call("layer", self.layer, x)
        if tracer.shape(y) != tracer.shape(x):
            raise ValueError(
                f"[residual] {tracer.where(self)}: {tracer.maker(x)} gives {tracer.shape(x)}, "
                f"but {self.layer} makes {tracer.shape(y)} of it: the shapes must be equal"
            )
        return tracer.node("add", {"a": x, "b": y}, tracer.shape(x))

    def __repr__(self) -> str:
        return f"Residual({self.layer!r})"
