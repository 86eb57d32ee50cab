"""Converts models to and from PyTorch: it knows the PyTorch module of each layer and the layout of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring import nn
from gradring.arrays import as_numbers
from gradring.habits import explained
from gradring.nn.layer import Layer
from gradring.nn.params import write

__all__ = ["from_torch", "to_torch"]


@explained("gr.interop.to_torch")
def to_torch(model: Layer) -> Any:
    """A ``torch.nn.Module`` that computes what the model does, with a copy of its weights, in evaluation mode.

    Parameters keep their names: ``"0.weight"`` here is ``"0.weight"`` there. PyTorch's linear weights are (out, in), so
    they are transposed. Raises ``ValueError`` for a layer that PyTorch does not have, such as ``gr.nn.Function`` or one of
    your own, and ``ImportError`` without PyTorch.

    >>> import gradring as gr
    >>> model = gr.nn.Sequential(gr.nn.Linear(4, 4), gr.nn.ReLU(), gr.nn.Linear(4, 2)).init(0)
    >>> module = to_torch(model)  # doctest: +SKIP
    >>> module(torch.from_numpy(x)).detach().numpy()  # doctest: +SKIP
    """
    torch = _torch("to_torch")
    module = _module(torch, model, "")
    if model.store.dtype == "float64":
        module = module.double()
    wanted = module.state_dict()
    values = {}
    for path, layer in model.walk():
        for name in (*layer.parameter_specs(), *layer.buffer_specs()):
            full = _joined(path, name)
            array = model.store.saved[full]
            values[full] = torch.from_numpy(np.array(_turned(layer, name, np.asarray(array)), order="C"))
    module.load_state_dict({**{n: t for n, t in wanted.items() if n.endswith("num_batches_tracked")}, **values})
    return module.eval()


@explained("gr.interop.from_torch")
def from_torch(state_dict: Any, model: Layer, *, names: Mapping[str, str] | None = None) -> Layer:
    """Write the weights of a PyTorch module into ``model``, which is returned.

    ``state_dict`` is a module's ``state_dict()``, or the module. The names must be the model's, as in
    ``torch.nn.Sequential``; if not, ``names={"0": "fc1", "2": "fc2"}`` maps layers to their names there. A linear
    weight is always transposed, even if it is square, because the layer decides it and not the shape. Counts of
    batches, which gradring does not keep, are ignored. A missing, extra or differently shaped tensor raises
    ``ValueError``, and nothing is changed.

    >>> import numpy as np, gradring as gr
    >>> model = gr.nn.Sequential(gr.nn.Linear(2, 2))
    >>> state = {"fc.weight": np.array([[1, 2], [3, 4]]), "fc.bias": np.zeros(2)}
    >>> from_torch(state, model, names={"0": "fc"}).params["0.weight"].tolist()
    [[1.0, 3.0], [2.0, 4.0]]
    """
    if not isinstance(model, Layer):
        raise TypeError(f"[from_torch] model must be a gradring layer, got {type(model).__name__}")
    if not isinstance(state_dict, Mapping):
        if not callable(getattr(state_dict, "state_dict", None)):
            raise TypeError(
                f"[from_torch] state_dict must be a module or its state_dict(), got {type(state_dict).__name__}"
            )
        state_dict = state_dict.state_dict()
    called = dict(names or {})
    layers = dict(model.walk())
    strange = sorted(called.keys() - layers.keys())
    if strange:
        raise ValueError(
            f"[from_torch] names: the model has no layer {strange[0]!r}; its layers are {', '.join(layers)}"
        )
    left = {name: value for name, value in state_dict.items() if not name.endswith("num_batches_tracked")}
    found: dict[str, NDArray[Any]] = {}
    for path, layer in layers.items():
        for name, spec in {**layer.parameter_specs(), **layer.buffer_specs()}.items():
            theirs, ours = _joined(called.get(path, path), name), _joined(path, name)
            if theirs not in left:
                raise ValueError(
                    f"[from_torch] the state dict has no {theirs!r} for the model's {ours!r}; it has "
                    f"{', '.join(map(str, list(left)[:20])) or 'nothing more'}; say what layers are called there, for example "
                    f"names={{{path!r}: 'fc1'}}"
                )
            array = as_numbers("from_torch", repr(theirs), left.pop(theirs))
            if array.shape != _turned_shape(layer, name, spec.shape):
                raise ValueError(
                    f"[from_torch] {theirs!r} is {array.shape}, must be {_turned_shape(layer, name, spec.shape)} for the "
                    f"model's {ours!r} of {layer}"
                )
            found[ours] = _turned(layer, name, array)
    if left:
        raise ValueError(f"[from_torch] the model has nothing for {', '.join(map(repr, list(left)[:20]))}")
    model.store.require_idle("from_torch")
    for name, view in model.store.saved.items():
        write(view, found[name], casting="unsafe")
    model.store.whole.trained = False
    return model


def _turns(layer: Layer, name: str) -> bool:
    return isinstance(layer, nn.Linear) and name == "weight"


def _turned(layer: Layer, name: str, array: NDArray[Any]) -> NDArray[Any]:
    return array.T if _turns(layer, name) else array


def _turned_shape(layer: Layer, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if _turns(layer, name) else shape


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _torch(who: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"[{who}] needs PyTorch: pip install torch") from error
    return torch


def _makers(torch: Any) -> dict[type[Layer], Callable[[Any], Any]]:
    """Maps each class of layers to the function that makes the PyTorch module of such a layer."""
    module = torch.nn
    return {
        nn.Linear: lambda layer: module.Linear(layer.inputs, layer.outputs, bias=layer.bias),
        nn.ReLU: lambda layer: module.ReLU(),
        nn.GELU: lambda layer: module.GELU(approximate=layer.approximate),
        nn.SiLU: lambda layer: module.SiLU(),
        nn.Tanh: lambda layer: module.Tanh(),
        nn.Sigmoid: lambda layer: module.Sigmoid(),
        nn.Dropout: lambda layer: module.Dropout(layer.p),
        nn.Flatten: lambda layer: module.Flatten(),
        nn.Embedding: lambda layer: module.Embedding(layer.count, layer.features),
        nn.LayerNorm: lambda layer: module.LayerNorm(layer.features, eps=layer.eps, bias=layer.bias),
        nn.RMSNorm: lambda layer: module.RMSNorm(layer.features, eps=layer.eps),
        nn.BatchNorm1d: lambda layer: module.BatchNorm1d(
            layer.features, eps=layer.eps, momentum=layer.momentum, affine=layer.affine
        ),
    }


def _module(torch: Any, layer: Layer, path: str) -> Any:
    if type(layer) is nn.Sequential:
        parts = [_module(torch, part, _joined(path, name)) for name, part in layer.children().items()]
        return torch.nn.Sequential(*parts)
    if type(layer) is nn.Residual:
        return _residual(torch, _module(torch, layer.layer, _joined(path, "layer")))
    make = _makers(torch).get(type(layer))
    if make is None:
        raise ValueError(
            f"[to_torch] layer {path or 'the model'}, {layer}, has no counterpart in PyTorch: give its parts to to_torch one "
            "by one, and put them together there"
        )
    return make(layer)


def _residual(torch: Any, inner: Any) -> Any:
    def forward(self: Any, x: Any) -> Any:
        return x + self.layer(x)

    made = type("Residual", (torch.nn.Module,), {"forward": forward})()
    made.layer = inner
    return made
