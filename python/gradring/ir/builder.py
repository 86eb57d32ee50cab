"""The builder: layers add their operations to a forward graph through it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gradring.ir.facts import ids_of, integer_roles
from gradring.ir.graph import Graph
from gradring.ir.layout import Layout
from gradring.ir.memory import roots_of
from gradring.ir.nodes import Node
from gradring.ir.values import ITEM, Value

__all__ = ["Builder", "Input", "Traceable", "trace"]


@dataclass(frozen=True)
class Input:
    """A field of the batch that a model reads: its shape, the batch axis first, and the number of the field.

    ``integers`` says that the data are integers. They stay integers, of dtype int64, if the layers that read them take
    integers; layers that compute in floats get them cast.
    """

    shape: tuple[int, ...]
    integers: bool = False
    slot: int = 0


class Parameter(Protocol):
    """The attributes of a parameter's specification that the builder reads."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class Traceable(Protocol):
    """The attributes and methods of a layer that the builder uses."""

    @property
    def trace(self) -> Callable[..., str]: ...

    @property
    def input_names(self) -> tuple[str, ...]: ...

    def named_parameters(self) -> Mapping[str, Parameter]: ...

    def named_buffers(self) -> Mapping[str, Parameter]: ...


class Builder:
    """Collects nodes while layers run their ``trace`` methods, and knows which layer it is in.

    ``dtype`` is that of the model's arithmetic; ``layout`` says where each parameter lies. ``part`` says that the rows are a
    part of a larger batch, and that other ranks or other parts of the graph compute the rest.
    """

    def __init__(
        self, training: bool, *, dtype: str = "float32", layout: Layout | None = None, part: bool = False
    ) -> None:
        self.training, self.part = training, part
        self.dtype = dtype
        self.layout = layout
        self.graph = Graph()
        self._path: list[str] = []
        self._layers: list[Any] = []
        self._makers: dict[str, tuple[str, Any]] = {}
        self._readers: dict[str, str] = {}  # for an integer field: the layer that decided its dtype
        if layout is not None:
            for root in roots_of(layout, dtype):
                self.graph = self.graph.with_value(root)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value."""
        return self._value(name, "shape").shape

    # These are the mistakes that a user's own layer may make. The op's schema says whether the op accepts its operands.

    def _value(self, name: Any, what: str) -> Value:
        if not isinstance(name, str):
            raise TypeError(
                f"[trace] {self.origin()}: {what}: expected the name of a value, as input, parameter and node return it, got "
                f"{_shown(name)}"
            )
        value = self.graph.values.get(name)
        if value is None:
            raise ValueError(
                f"[trace] {self.origin()}: {what}: expected the name of a value that was made before, got {name!r}"
            )
        return value

    def _operands(self, op: Any, inputs: Any) -> dict[str, str]:
        if not isinstance(op, str):
            raise TypeError(f"[trace] {self.origin()}: expected the name of an op, got {_shown(op)}")
        if not isinstance(inputs, Mapping):
            raise TypeError(
                f"[trace] {self.origin()}: {op}: expected the operands as a dict from roles to names of values, got "
                f"{_shown(inputs)}"
            )
        for role, name in inputs.items():
            self._value(name, f"{op}: operand {role}")
        return dict(inputs)

    def _mapping(self, op: str, what: str, given: Any) -> dict[str, Any]:
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"[trace] {self.origin()}: {op}: expected the {what} as a dict, got {_shown(given)}")
        return dict(given or {})

    def _shape(self, shape: Any, what: str) -> tuple[int, ...]:
        try:
            made = tuple(map(operator.index, shape))
        except TypeError:
            made = (-1,)
        if any(extent < 0 for extent in made):
            raise ValueError(
                f"[trace] {self.origin()}: {what}: expected a tuple of ints of at least 0, got {_shown(shape)}"
            )
        return made

    def _dtype(self, dtype: str | None, what: str) -> str:
        if dtype is not None and dtype not in ITEM:
            raise ValueError(f"[trace] {self.origin()}: {what}: expected one of {', '.join(ITEM)}, got {_shown(dtype)}")
        return dtype or self.dtype

    def maker(self, name: str) -> str:
        """The layer that made a value, for error messages: ``"layer 0, Linear(784, 256)"``."""
        path, layer = self._makers.get(name, ("", None))
        return f"layer {path}, {layer}" if path else "the input"

    def path(self, name: str) -> str:
        """A name inside the current layer: ``"0.weight"``."""
        return ".".join([*self._path, name])

    def input(self, name: str, shape: tuple[int, ...], dtype: str | None = None, field: int = 0) -> str:
        """Add a field of the batch. A field of dtype int64 keeps it if the layers that read the field accept
        integers."""
        value = Value(name, shape, "input", dtype or self.dtype, offset=field)
        self.graph = self.graph.with_value(value)
        return name

    def parameter(self, name: str, shape: tuple[int, ...]) -> str:
        """The current layer's parameter: a view of the flat arena. A layer that is used twice shares it."""
        return self._stored("parameter", name, shape, self.layout)

    def buffer(self, name: str, shape: tuple[int, ...]) -> str:
        """The current layer's buffer: a view of the arena's part that no optimizer changes."""
        return self._stored("buffer", name, shape, self.layout and self.layout.buffers)

    def _stored(self, what: str, name: str, shape: tuple[int, ...], layout: Layout | None) -> str:
        path, known = self.path(name), self.graph.values.get(self.path(name))
        value = Value(path, self._shape(shape, f"{what} {path!r}"), "buffer" if what == "buffer" else "param", self.dtype)
        expected = value.shape if known is None else known.shape
        if self.layout is not None:
            if layout is None or path not in layout.offsets:
                raise ValueError(f"[trace] {self.origin()} reads {what} {path!r}, which the model does not have")
            value, expected = replace(value, within=f"{what}s", offset=layout.offsets[path]), layout.shapes[path]
        if value.shape != expected:
            raise ValueError(f"[trace] {self.origin()}: {what} {path!r} is {expected}: expected this shape, got {value.shape}")
        if known is None:
            self.graph = self.graph.with_value(value)
        return path

    def constant(self, name: str, data: Sequence[float]) -> str:
        """Add a vector of numbers that are part of the program."""
        named = self.graph.fresh(self.path(name))
        try:
            numbers = tuple(map(float, data))
        except (TypeError, ValueError):
            what = f"constant {named!r}: expected numbers in a row"
            raise TypeError(f"[trace] {self.origin()}: {what}, got {_shown(data)}") from None
        self.graph = self.graph.with_value(Value(named, (len(numbers),), "const", self.dtype, data=numbers))
        return named

    def update_buffers(
        self, op: str, inputs: Mapping[str, str], updates: tuple[str, ...], attributes: Mapping[str, Any]
    ) -> None:
        """Add an operation that changes buffers (the inputs ``updates``) after the step's check has passed."""
        operands, values = self._operands(op, inputs), self._mapping(op, "attributes", attributes)
        node = Node(op, operands, {}, values, updates=tuple(updates), phase="update", origin=self.origin())
        self.graph = self.graph.with_node(node)

    def node(
        self,
        op: str,
        inputs: Mapping[str, str],
        shape: tuple[int, ...],
        attributes: Mapping[str, Any] | None = None,
        *,
        effects: str = "",
        also: Mapping[str, Value] | None = None,
        integers: Sequence[str] = (),
        dtype: str | None = None,
    ) -> str:
        """Add an operation of one output ``y`` and return the output's name.

        ``also`` are further outputs by role, whose names are made unique; ``effects`` says what else the node does.
        ``integers`` are the roles that read integers unchanged, beside those of which the op's schema says that they are
        integers; for all others integers are cast. ``dtype`` is the output's, if it is not the model's. An op that finds ids
        that are no rows is followed by the check that ends the step.
        """
        operands = self._operands(op, inputs)
        for role, of in operands.items():
            self._read(of, role in integers or role in integer_roles(op))
            if role in integer_roles(op):
                self._require_integers(role, of)
        shape = self._shape(shape, f"{op}: shape of the output")
        dtype = self._dtype(dtype, f"{op}: dtype of the output")
        name = self.graph.fresh(self.path("out"))
        self.graph = self.graph.with_value(Value(name, shape, dtype=dtype))
        outputs, ids = {"y": name}, ids_of(op)
        further = self._mapping(op, "further outputs", also)
        if ids in operands:
            further.setdefault("fault", Value("fault", (1,), dtype="int64"))
        for role, value in further.items():
            if not isinstance(value, Value):
                raise TypeError(f"[trace] {self.origin()}: {op}: output {role}: expected a Value, got {_shown(value)}")
            outputs[role] = self.graph.fresh(f"{name}.{role}")
            self.graph = self.graph.with_value(replace(value, name=outputs[role]))
        given = self._mapping(op, "attributes", attributes)
        node = Node(op, operands, outputs, given, effects=effects, origin=self.origin())
        self.graph = self.graph.with_node(node)
        if ids in operands:
            self.check("check_ids", {"ids": self._by_sample(op, operands[ids]), "fault": outputs["fault"]})
        return name

    def _require_integers(self, role: str, name: str) -> None:
        dtype = self.graph.values[name].dtype
        if "int" in dtype:
            return
        layer = self._layers[-1] if self._layers else None
        given = self.graph.values[self.graph.root(name)].kind == "input"
        maker = self.maker(name) if given or name in self._makers else "a value of its own"
        cure = "give it integers, or convert them with .astype(int)" if given else "make it the first layer"
        kind, where = (type(layer).__name__, self.where(layer)) if layer else ("trace", self.origin())
        raise TypeError(f"[{kind}] {where} reads integer {role}, but {maker} gives {dtype}: {cure}")

    def _by_sample(self, op: str, ids: str) -> str:
        """The memory of ``ids`` as a value of which the batch axis is the first, so that a check can name the sample."""
        rows = next((value.shape[0] for value in self.graph.values.values() if value.kind == "input"), 1)
        root, size = self.graph.root(ids), self.graph.values[ids].size
        if self.graph.values[root].shape[:1] == (rows,):
            return root
        if size % rows:
            raise ValueError(
                f"[trace] {self.origin()}: {op}: expected as many ids per sample, got {size} ids for {rows} samples"
            )
        return self.view(ids, (rows, size // rows))

    def _read(self, name: str, as_integers: bool) -> None:
        """Note that a layer reads a value. If it is a field of integers, the first reader decides whether it is
        cast."""
        root = self.graph.root(name)
        value = self.graph.values[root]
        if value.kind != "input" or (root not in self._readers and value.dtype != "int64"):
            return
        dtype = "int64" if as_integers else self.dtype
        if root in self._readers and value.dtype != dtype:
            kinds = ("integers", "floats") if as_integers else ("floats", "integers")
            raise ValueError(
                f"[trace] {self.origin()} reads field {root!r} as {kinds[0]}, but {self._readers[root]} reads it as "
                f"{kinds[1]}: give the field twice, under two names"
            )
        self._readers.setdefault(root, self.origin())
        if value.dtype != dtype:
            cast = {n: replace(v, dtype=dtype) for n, v in self.graph.values.items() if self.graph.root(n) == root}
            self.graph = replace(self.graph, values={**self.graph.values, **cast})

    def check(self, op: str, inputs: Mapping[str, str]) -> None:
        """Add an operation that checks values, and ends the step if one is out of range."""
        effects = f"{op} {self.path('out')}, {len(self.graph.nodes)}"
        operands = self._operands(op, inputs)
        if any(node.op == op and node.inputs == operands for node in self.graph.nodes):
            return  # a layer asks for a check that node has added
        self.graph = self.graph.with_node(Node(op, operands, {}, effects=effects, origin=self.origin()))

    def draw(self) -> str:
        """The number of this forward pass, as a value."""
        self.graph = self.graph.with_step("draw")
        return "step.draw"

    def view(self, x: str, shape: tuple[int, ...]) -> str:
        """Add a view of a value: the same memory under another shape."""
        of, shape = self._value(x, "view"), self._shape(shape, "view: shape")
        if math.prod(shape) > of.size:
            raise ValueError(
                f"[trace] {self.origin()}: view: {x!r} is {of.shape}: expected a shape of at most {of.size} elements, got "
                f"{shape}"
            )
        name = self.graph.fresh(self.path("view"))
        self.graph = self.graph.with_value(Value(name, shape, of.kind, of.dtype, within=x))
        return name

    def call(self, name: str, layer: Traceable, *inputs: str) -> str:
        """Trace a layer under a name, of one input or of as many as it has ``input_names``."""
        self._path.append(name)
        self._layers.append(layer)
        try:
            y = layer.trace(self, *inputs)
            self._value(y, "what trace returns")
            self._makers.setdefault(y, (".".join(self._path), layer))
        finally:
            self._path.pop()
            self._layers.pop()
        return y

    def whole(self, model: Traceable, *inputs: str) -> str:
        """Trace the model itself, whose path is empty."""
        self._layers.append(model)
        try:
            y = model.trace(self, *inputs)
            self._value(y, "what trace returns")
        finally:
            self._layers.pop()
        return y

    def origin(self) -> str:
        """The current layer as nodes name it: ``"0.Linear(784, 256)"``."""
        layer = str(self._layers[-1]) if self._layers else "model"
        return ".".join([*self._path, layer])

    def where(self, layer: Traceable) -> str:
        """The current layer, for error messages."""
        return f"layer {'.'.join(self._path)}, {layer}" if self._path else str(layer)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text}" if len(text) <= 60 else type(value).__name__


def trace(
    model: Traceable,
    inputs: tuple[int, ...] | Mapping[str, Input],
    *,
    training: bool,
    dtype: str = "float32",
    layout: Layout | None = None,
    part: bool = False,
    check: Callable[[Graph], object] = id,
) -> tuple[Graph, str]:
    """The forward graph of ``model`` for a batch, or for a ``part`` of one, and its output's name. ``check`` may refuse it.

    ``inputs`` are the fields that the model reads, by name; for a model of one input the shape of ``x`` is enough (batch
    axis first). ``layout`` says where the parameters lie; without it they lie one after another.
    """
    fields = dict(inputs) if isinstance(inputs, Mapping) else {"x": Input(tuple(inputs))}
    if fields.keys() != set(model.input_names):
        raise ValueError(f"[trace] {model} has the inputs {list(model.input_names)}, got {list(fields)}")
    for name, field in fields.items():
        if len(field.shape) < 1 or any(n < 1 for n in field.shape):
            what = "input shape" if len(fields) == 1 else f"the shape of input {name!r}"
            raise ValueError(f"[trace] {what} is {field.shape}: every axis must be at least 1")
    if layout is None:
        layout = Layout.of(
            {name: tuple(spec.shape) for name, spec in model.named_parameters().items()},
            {name: tuple(spec.shape) for name, spec in model.named_buffers().items()},
        )
    builder = Builder(training, dtype=dtype, layout=layout, part=part)
    for name in model.input_names:
        field = fields[name]
        builder.input(name, field.shape, "int64" if field.integers else None, field.slot)
    output = builder.whole(model, *model.input_names)
    unread = [n for n, v in builder.graph.values.items() if v.kind == "input" and v.dtype == "int64"]
    for name in unread:  # a model that returns its input, or only reshapes it, returns floats too
        if builder.graph.root(name) not in builder._readers:
            builder._read(name, False)
    check(builder.graph)
    made, rows = builder.graph.values[output], next(iter(fields.values())).shape[0]
    if made.kind == "step" or made.shape[:1] != (rows,) or made.dtype != dtype:
        path, layer = builder._makers.get(output, ("", model))
        raise ValueError(
            f"[trace] {path}{path and '.'}{layer}: the model's output is {made.shape} of {made.dtype}: expected ({rows}, ...) "
            f"of {dtype}, because a batch has {rows} rows"
        )
    return builder.graph, output
