"""Public names that are planned. If one is not built yet, reading it raises ``NotBuilt`` with a sentence about this
version.

A module's own names come first, so a name may stay in the table when it is built; delete it then.

>>> import gradring as gr
>>> hasattr(gr.nn, "NoSuchLayer"), hasattr(gr, "no_such_name")
(False, False)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from gradring.errors import NotBuilt
from gradring.habits import close_to

__all__ = ["PLANNED", "getter", "refuse"]

_VECTORS = "this version has layers and kernels of vectors"

# Maps a module and a name in it to a text about what this version has instead.
PLANNED: dict[str, dict[str, str]] = {
    "gradring.nn": {
        **dict.fromkeys(
            ("AvgPool2d", "BatchNorm2d", "Conv2d", "MaxPool2d", "MultiHeadAttention"),
            _VECTORS,
        ),
    },
    "gradring.ops": {
        name + suffix: _VECTORS
        for name in (
            "attention",
            "avg_pool2d",
            "conv2d",
            "max_pool2d",
        )
        for suffix in ("", "_vjp")
    },
}


# Names of other libraries.
_ELSEWHERE = {
    **dict.fromkeys(("Dense", "LazyLinear"), "the layer is gr.nn.Linear(inputs, outputs)"),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax"),
        "no layer is needed: the loss cross_entropy takes scores, and trainer.predict_proba gives probabilities",
    ),
    **dict.fromkeys(("Module", "Model"), "a model is a gr.nn.Layer; gr.nn.Sequential(...) makes one of several"),
    **dict.fromkeys(("CrossEntropyLoss", "SparseCategoricalCrossentropy"), "the loss is gr.losses.CrossEntropy()"),
    **dict.fromkeys(("BCEWithLogitsLoss", "BCELoss"), "the loss is gr.losses.BinaryCrossEntropy()"),
    **dict.fromkeys(("DataLoader", "Dataset", "TensorDataset"), "gr.Loader(source, batch_size) makes batches"),
    **dict.fromkeys(("ModelCheckpoint", "EarlyStopping"), "gr.callbacks has Checkpoint and EarlyStop"),
}


def refuse(module: str, name: str) -> NoReturn:
    """Raise the error for a name that ``module`` does not have: ``NotBuilt`` if the name is planned."""
    instead = PLANNED.get(module, {}).get(name)
    if instead is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}{_hint(module, name)}")
    public = "gr" + module.removeprefix("gradring")
    raise NotBuilt(f"{public}.{name} is planned; {instead}")


def _hint(module: str, name: str) -> str:
    if name.startswith("_"):  # Python itself and tools ask for such names
        return ""
    public, known = "gr" + module.removeprefix("gradring"), _ELSEWHERE.get(name)
    if known is not None:
        return f": {known}"
    close = close_to(name, getattr(sys.modules.get(module), "__all__", ()))
    return f"; did you mean {public}.{close}?" if close else ""


def getter(module: str) -> Callable[[str], Any]:
    """A module's ``__getattr__``."""
    return lambda name: refuse(module, name)
