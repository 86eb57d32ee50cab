"""Names that models have in other libraries, and what takes their place here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from gradring.habits import close_to

__all__ = ["described", "refuse"]

_TRAINING = "a model alone does not train: gr.Trainer(model, ...) has fit, step, evaluate and predict"
_MODES = "there is no mode to set: a trainer's steps draw dropout, and model(x), predict and evaluate do not"
_DTYPE = "model.astype('float64') and astype('float32') change the dtype of the parameters"
_INSTEAD = {
    **dict.fromkeys(("fit", "compile", "evaluate", "predict", "train_on_batch", "zero_grad", "backward"), _TRAINING),
    **dict.fromkeys(("train", "eval", "training"), _MODES),
    **dict.fromkeys(("half", "float", "double", "bfloat16"), _DTYPE),
    "forward": "call the model itself: model(x)",
    "apply": "call the model itself: model(x); model.init(seed) fills the parameters",
    "state_dict": "model.params maps names to the live arrays, model.buffers to the others, and model.save(path) writes a file",
    "load_state_dict": "model.params.update(values) writes into the arrays; gr.interop.from_torch takes PyTorch's",
    "load_weights": "gr.load(path, model=model) takes the weights of a file",
    "save_weights": "model.save(path) writes weights and architecture",
    "named_modules": "model.walk() gives all layers with their paths",
    "modules": "model.walk() gives all layers with their paths",
    "requires_grad_": "gr.Trainer(model, frozen=[...]) leaves parameters as they are, by patterns over their names",
    "trainable": "gr.Trainer(model, frozen=[...]) leaves parameters as they are, by patterns over their names",
    "append": "a model's layers are fixed when it is made: make another one, gr.nn.Sequential(*model.layers, layer)",
    "add": "a model's layers are fixed when it is made: make another one, gr.nn.Sequential(*layers)",
    "cuda": "model.to('cuda') moves the parameters",
    "cpu": "model.to('cpu') moves the parameters",
    "weights": "model.params maps names to the live arrays",
}


_ATTRIBUTES = {
    "rate": "p",
    "in_features": "inputs",
    "out_features": "outputs",
    "units": "outputs",
    "weight": "params",
    "bias": "params",
    "num_embeddings": "count",
    "embedding_dim": "features",
}


def described(model: object) -> str:
    """What was given in place of a model, and what to do about it.

    >>> described([1, 2])
    'list: gr.nn.Sequential(*layers) makes a model of layers'
    """
    name = type(model).__name__
    if isinstance(model, (list, tuple)):
        return f"{name}: gr.nn.Sequential(*layers) makes a model of layers"
    if isinstance(model, type):
        return f"the class {model.__name__}: did you forget the brackets?"
    if isinstance(model, (str, bytes)) or hasattr(model, "__fspath__"):
        return f"{name}: gr.load(path) makes the model that a file has"
    library = type(model).__module__.partition(".")[0]
    if library in ("torch", "keras", "tensorflow", "flax", "equinox") or hasattr(model, "state_dict"):
        return (
            f"{name} of {library}: make the same model of gr.nn's layers, which gr.interop.from_torch gives PyTorch's "
            "parameters, or give gradients of your own, Trainer(step=function, params=...)"
        )
    return name


def refuse(kind: str, name: str, known: Iterable[str]) -> NoReturn:
    """Raise the ``AttributeError`` for a name that a layer does not have; ``known`` are those that it has."""
    instead = _INSTEAD.get(name)
    if instead:
        raise AttributeError(f"[{kind}] there is no {name}: {instead}")
    text = f"{kind!r} object has no attribute {name!r}"
    if name.startswith("_"):  # Python itself and tools ask for such names
        raise AttributeError(text)
    known = list(known)
    close = _ATTRIBUTES.get(name, "")
    close = close if close in known else close_to(name, known)
    raise AttributeError(f"{text}; did you mean {close!r}?" if close else text)
