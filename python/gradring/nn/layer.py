"""Layer: the base class of every part of a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gradring import devices, hooks
from gradring.arguments import float_dtype, plain, whole
from gradring.attributes import Settled
from gradring.habits import explained
from gradring.nn import habits
from gradring.nn.params import Params
from gradring.nn.store import Store
from gradring.nn.summary import summarize
from gradring.tables import Table

if TYPE_CHECKING:
    from typing_extensions import Self

    from gradring.ir import Builder

__all__ = ["Layer", "ParameterSpec"]

Fill = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


@dataclass(frozen=True)
class ParameterSpec:
    """The shape of a parameter or a buffer, and how it is filled: a function of a random generator and the shape."""

    shape: tuple[int, ...]
    fill: Fill


class Layer(Settled):
    """A function of one array with named parameters. Any layer is a model.

    A subclass says which parameters it has (``parameter_specs``), which layers are inside (``children``) and what it does
    (``trace``). Parameters live in one flat block of shared memory that ``init`` makes; ``params`` are views of it.

    A model of several inputs lists their names, and batches give fields of these names:

    >>> from gradring import nn
    >>> class Towers(nn.Layer):
    ...     input_names = ("left", "right")
    ...
    ...     def __init__(self):
    ...         self.inside = {"a": nn.Linear(3, 2), "b": nn.Linear(5, 2)}
    ...
    ...     def children(self):
    ...         return self.inside
    ...
    ...     def trace(self, tracer, left, right):
    ...         a, b = tracer.call("a", self.inside["a"], left), tracer.call("b", self.inside["b"], right)
    ...         return tracer.node("add", {"a": a, "b": b}, tracer.shape(a))
    >>> Towers()([[1, 2, 3]], [[1, 2, 3, 4, 5]]).shape
    (1, 2)
    """

    input_names: tuple[str, ...] = ("x",)
    """The fields of a batch that this layer reads as a model. A layer with several inputs overrides it, and its ``trace``
    then takes as many names."""

    shown_by_parts: ClassVar[bool] = False
    """Whether a summary has one line per inner layer instead of one for the whole."""

    _store: Store | None = None
    _forward: Any = None
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]  # the constructor's arguments, from which a file describes it

    def __new__(cls, *given: Any, **named: Any) -> Self:
        made = super().__new__(cls)
        made._made_with = tuple(map(_kept, given)), {name: _kept(value) for name, value in named.items()}
        return made

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "parameters" in cls.__dict__:
            raise TypeError(
                f"[Layer] {cls.__name__} overrides parameters: a layer declares its parameters in parameter_specs(self), "
                "and reads them as self.params"
            )

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """This layer's own parameters by name, without those of its children: override it to declare them."""
        return {}

    def buffer_specs(self) -> dict[str, ParameterSpec]:
        """This layer's own buffers by name: arrays that are saved with the model but never trained, such as the running
        moments of BatchNorm1d."""
        return {}

    @property
    def parameters(self) -> NoReturn:
        """Does not exist: the parameters are ``params``."""
        raise AttributeError(
            f"[{type(self).__name__}] there is no parameters(): model.params maps names to the live arrays, and a layer "
            "declares its own in parameter_specs()"
        )

    if not TYPE_CHECKING:  # if a type checker saw this method, it would find every name

        def __getattr__(self, name: str) -> Any:
            known = getattr(type(self), name, None)
            if isinstance(known, property):  # it has raised AttributeError, which says more than that it is not there
                return known.__get__(self)
            habits.refuse(type(self).__name__, name, () if name.startswith("_") else dir(self))

    def _changed(self, name: str) -> None:
        # The attribute of a user's layer may change how the layer is traced, so programs must be made again.
        if self._store is not None:
            for programs in list(self._store.whole.programs):
                programs.forget()
        self._forward = None

    def children(self) -> dict[str, Layer]:
        """The layers inside, by name."""
        return {}

    # The type is Any, so that a layer may name its inputs: trace(self, tracer, x), trace(self, tracer, left, right).
    def trace(self, tracer: Builder, *inputs: Any, **named: Any) -> str:
        """Add this layer's operations to the graph; return the output's name. ``inputs`` are the names of the values that it
        reads, one per name in ``input_names``."""
        raise NotImplementedError(f"[Layer] {_what_is_missing(self)}")

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """This layer and all layers inside, with their paths; the path of this one is ``""``."""
        yield prefix, self
        for name, child in self.children().items():
            yield from child.walk(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> dict[str, ParameterSpec]:
        """All parameters by full name, such as ``"0.weight"``, in the order of their memory."""
        specs: dict[str, ParameterSpec] = {}
        places: dict[int, str] = {}  # the first path of each layer with parameters
        for path, layer in self.walk():
            own = layer.parameter_specs()
            if (own or layer.buffer_specs()) and places.setdefault(id(layer), path) != path:
                raise ValueError(
                    f"[{type(self).__name__}] layer {path}, {layer!r}, is layer {places[id(layer)]} again: "
                    "layers cannot share parameters, make a new one for each place"
                )
            specs |= {f"{path}.{name}" if path else name: spec for name, spec in own.items()}
        return specs

    def named_buffers(self) -> dict[str, ParameterSpec]:
        """All buffers by full name, such as ``"1.running_mean"``."""
        return {
            f"{path}.{name}" if path else name: spec
            for path, layer in self.walk()
            for name, spec in layer.buffer_specs().items()
        }

    @explained("Layer.init")
    def init(self, seed: int = 0, dtype: DTypeLike = "float32") -> Self:
        """Fill all parameters and buffers with fresh values and return the model.

        Each parameter has its own generator (Philox), keyed by ``(seed, name)``: its values depend on nothing else, so
        adding a layer does not change the values of the others. A second call with the same dtype keeps the memory and
        all views.

        >>> from gradring import nn
        >>> nn.Linear(3, 2).init(seed=1).params["weight"].shape
        (3, 2)
        """
        seed = whole(f"{type(self).__name__}.init", "seed", seed, 0, 2**63 - 1)
        specs, real = self.named_parameters(), float_dtype(f"{type(self).__name__}.init", dtype)
        buffers = self.named_buffers()
        if self._store is not None:
            self._store.require_idle(f"{type(self).__name__}.init")
        if (
            self._store is None
            or self._store.whole.retired
            or self._store.dtype != real
            or self._store.shapes != _shapes(specs)
            or {name: array.shape for name, array in self._store.buffers.items()} != _shapes(buffers)
        ):
            device = devices.CPU if self._store is None else self._store.device
            self._adopt(Store(_shapes(specs), real, _shapes(buffers), device))
        saved = self.store.saved
        for name, spec in {**specs, **buffers}.items():
            saved[name][...] = spec.fill(Store.generator(seed, name), spec.shape)
        self.store.whole.trained = False
        return self

    def _adopt(self, store: Store) -> None:
        """Move this layer and all layers inside to this store; their ``params`` are views of its memory."""
        layers = list(self.walk())
        left = {id(layer._store.whole): layer._store.whole for _, layer in layers if layer._store is not None}
        for old in left.values():
            old.require_idle(f"{type(self).__name__}.init")
        for old in left.values():
            old.retire()
        for path, layer in layers:
            layer._store = store.part(path) if path else store
            layer._forward = None

    @property
    def store(self) -> Store:
        """The memory of the parameters. It is made if it does not exist yet: see ``ensure``."""
        return self.ensure()

    def ensure(self, seed: int = 0, dtype: DTypeLike = "float32") -> Store:
        """The memory of the parameters. If it does not exist yet, it is made and filled as by ``init``, except that
        layers with parameters keep their values. So after a layer inside has become part of another model, new memory
        is made, with that model's current values for the layer."""
        if self._store is None or self._store.whole.retired:
            kept = [(path, layer, layer._store) for path, layer in self.walk() if layer._store is not None]
            self.init(seed, dtype if self._store is None else self._store.dtype)
            for path, layer, store in kept:
                for name in (*layer.parameter_specs(), *layer.buffer_specs()):
                    self.store.saved[f"{path}.{name}" if path else name] = store.saved[name]
        assert self._store is not None
        return self._store

    def astype(self, dtype: DTypeLike) -> Self:
        """Move the parameters with their values to memory of another dtype: ``float32`` or ``float64``. Earlier views
        stay with the old memory."""
        real = float_dtype(f"{type(self).__name__}.astype", dtype)
        if self.store.dtype != real:
            self.store.require_idle(f"{type(self).__name__}.astype")
            self._adopt(self.store.converted(real))
        return self

    def to(self, device: str) -> Self:
        """Move parameters and buffers with their values to the memory of ``"cpu"``, ``"cuda"`` or ``"cuda:N"``, where the model
        then computes. Earlier views stay with the old memory. Raises ``DeviceUnavailable`` if the device cannot be used."""
        place = devices.named(device, f"{type(self).__name__}.to")
        if self.store.device != place:
            devices.require_no_capture(self.store.device, f"{type(self).__name__}.to")
            self.store.require_idle(f"{type(self).__name__}.to")
            self._adopt(self.store.moved(place))
        return self

    @property
    def params(self) -> Params:
        """Live views of the parameters by name: writing to one changes the model, and so does
        ``model.params["0.weight"] = values``. Once a model has its parameters,
        those of a layer inside are views of the same memory: ``model[0].params["weight"]`` is
        ``model.params["0.weight"]``."""
        return self.store.arrays

    @params.setter
    def params(self, values: Params) -> None:
        if values is not self.params:  # `params |= {...}` assigns the same object
            raise AttributeError(f"[{type(self).__name__}] params is read-only: params.update(values) writes into it")

    @property
    def buffers(self) -> Params:
        """Live views of the buffers by name: what is saved with the model but never trained, such as
        ``model.buffers["1.running_mean"]``."""
        return self.store.buffers

    def __call__(self, *inputs: ArrayLike) -> NDArray[Any]:
        """The forward pass on a batch, without dropout: ``x`` is (batch, ...) and is converted to the parameters' dtype. A
        model with several inputs takes them in the order of ``input_names``."""
        if self._forward is None or self._forward.store is not self.store:
            self._forward = hooks.forward(self)
        result: NDArray[Any] = self._forward(*inputs)
        return result

    @explained("Layer.save")
    def save(self, path: str | os.PathLike[str], *, notes: Mapping[str, str] | None = None) -> None:
        """Write weights and architecture to one safetensors file, which appears whole or not at all; ``gr.load`` builds
        the model from it. ``notes`` are texts by name, which go into the file's metadata.

        >>> from gradring import nn
        >>> nn.Linear(3, 2).save("linear.safetensors")
        """
        hooks.save(self, path, notes)

    @explained("Layer.summary")
    def summary(self, input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]]) -> Table:
        """A table for a batch of ``input_shape``: layer, output shape, parameters, FLOPs of the forward pass, bytes. A model of
        several inputs takes a dict of their shapes.

        >>> from gradring import nn
        >>> print(nn.Sequential(nn.Linear(4, 2), nn.ReLU()).summary((8, 4)))
        layer             output   parameters     FLOP    bytes
        0: Linear(4, 2)   (8, 2)           10      144      104
        1: ReLU()         (8, 2)            0       16       64
        total                              10      160      168
        """
        return summarize(self, input_shape)

    # A copy or a pickle has the layer's values; it makes new native memory and programs.

    _native: ClassVar[tuple[str, ...]] = ("_store", "_forward")

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key not in self._native}
        if self._store is not None:
            names = (*self.parameter_specs(), *self.buffer_specs())
            own = {name: self._store.saved[name].copy() for name in names}
            state["_values"] = (self._store.dtype, own)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        dtype, values = state.pop("_values", (None, {}))
        self.__dict__.update(state)
        if dtype is not None:
            for name, child in self.children().items():
                values |= {f"{name}.{key}": array for key, array in child.store.saved.items()}
            self._adopt(Store(_shapes(self.named_parameters()), dtype, _shapes(self.named_buffers())))
            for name, array in self.store.saved.items():
                array[...] = values[name]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _shapes(specs: Mapping[str, ParameterSpec]) -> dict[str, tuple[int, ...]]:
    return {name: spec.shape for name, spec in specs.items()}


@dataclass(frozen=True)
class NotData:
    """Replaces an argument that a file cannot hold and that a layer should not keep alive; it has the argument's
    description."""

    kind: str


def _kept(value: Any, depth: int = 0) -> Any:
    """Convert an argument of a layer's constructor to data, if it is data or a layer. Lists must not be too long or too
    deep."""
    value = plain(value)
    if value is None or isinstance(value, (bool, int, float, str, Layer)):
        return value
    if isinstance(value, (list, tuple)) and len(value) <= 10_000 and depth < 8:
        return [_kept(part, depth + 1) for part in value]
    return NotData(type(value).__name__)


def _what_is_missing(layer: Layer) -> str:
    kind = type(layer).__name__
    if hasattr(layer, "forward"):
        return (
            f"{kind} has forward, but a layer says what it does in trace(self, tracer, x): make it of other layers, for "
            f"example `return tracer.call('first', self.first, x)`, or give functions of arrays to "
            "gr.nn.Function(forward, vjp)"
        )
    return f"{kind} must override trace(self, tracer, x), which adds its operations to the graph"
