"""A model in one file: its weights as tensors, and its architecture as data in the metadata."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from gradring import checkpoint, hooks
from gradring.errors import CheckpointCorrupt, CheckpointMismatch
from gradring.files import as_path
from gradring.habits import explained
from gradring.nn.architecture import build, describe
from gradring.nn.layer import Layer
from gradring.nn.params import write
from gradring.nn.store import Store

__all__ = ["ARCHITECTURE", "as_notes", "description", "load", "notes_of", "read_model", "save"]

ARCHITECTURE = "architecture"  # the key of the architecture in the metadata
_NOTE = "note."  # the prefix of the names of a user's texts
_BESIDE = ("optimizer/", "callbacks/", "training/")  # the prefixes of a checkpoint's other tensors


def save(model: Layer, path: str | os.PathLike[str], notes: Mapping[str, str] | None = None) -> None:
    """Write the model; ``notes`` are more texts for the metadata."""
    metadata = {"format": "gradring", "version": "1", **description(model), **as_notes(notes)}
    checkpoint.write(path, dict(model.store.saved), metadata)


def description(model: Layer) -> dict[str, str]:
    """The description of a model in the metadata of a file."""
    return {ARCHITECTURE: describe(model), "dtype": model.store.dtype}


def as_notes(notes: Mapping[str, str] | None) -> dict[str, str]:
    """A user's texts as metadata, with a prefix that keeps their names apart from the package's."""
    if notes is None:
        return {}
    if not isinstance(notes, Mapping) or not all(isinstance(t, str) for pair in notes.items() for t in pair):
        raise TypeError("[save] notes must be a dict of texts by name")
    return {_NOTE + name: text for name, text in notes.items()}


def notes_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """The user's texts that ``as_notes`` put into the metadata."""
    return {name.removeprefix(_NOTE): text for name, text in metadata.items() if name.startswith(_NOTE)}


@explained("gr.load")
def load(
    path: str | os.PathLike[str],
    *,
    model: Layer | None = None,
    layers: Mapping[str, Callable[..., Layer]] | None = None,
) -> Layer:
    """The model of a file that ``model.save``, ``trainer.save`` or ``Checkpoint`` wrote: architecture and weights.

    A file holds the architecture as data: the names of this package's layers and the arguments that they were made with. It
    cannot name classes or functions of your own, as loading them would run code that the file chooses. So you provide them:
    ``layers={"Block": Block}`` maps the names that the file uses to your classes, or ``model=`` is a model that you have
    built in Python, which gets the weights and is returned.

    A file that is damaged or foreign raises ``CheckpointCorrupt``, and an intact one that does not fit
    ``CheckpointMismatch``. In either case a ``model`` is unchanged. No memory is allocated for parameters that the file
    does not have.

    >>> import numpy as np, gradring as gr
    >>> model = gr.nn.Sequential(gr.nn.Linear(4, 8), gr.nn.ReLU(), gr.nn.Linear(8, 2)).init(seed=3)
    >>> model.save("model.safetensors")
    >>> again = gr.load("model.safetensors")
    >>> again
    Sequential(Linear(4, 8), ReLU(), Linear(8, 2))
    >>> x = np.ones((5, 4), np.float32)
    >>> bool((again(x) == model(x)).all())
    True
    """
    return read_model(path, model=model, layers=layers)[0]


def read_model(
    path: str | os.PathLike[str],
    *,
    model: Layer | None = None,
    layers: Mapping[str, Callable[..., Layer]] | None = None,
) -> tuple[Layer, dict[str, str]]:
    """The model of a file, and the file's metadata."""
    where = f"[load] {as_path('load', path)}"
    if model is not None and not isinstance(model, Layer):
        raise TypeError(f"[load] model must be a gradring layer, got {type(model).__name__}")
    tensors, metadata = checkpoint.read(path)
    weights = {name: array for name, array in tensors.items() if not name.startswith(_BESIDE)}
    if model is None:
        if ARCHITECTURE not in metadata:
            raise CheckpointMismatch(
                f"{where} has no architecture, as a trainer with a step of its own or an earlier gradring wrote it: build "
                "the model in Python, and take the weights by gr.load(path, model=model)"
            )
        model = build(metadata[ARCHITECTURE], where, layers)
        _require_equal(where, model, weights, CheckpointCorrupt)
        shapes = {name: weights[name].shape for name in model.named_parameters()}
        buffers = {name: weights[name].shape for name in model.named_buffers()}
        model._adopt(Store(shapes, _dtype(where, weights, metadata), buffers))
    else:
        _require_equal(where, model, weights, CheckpointMismatch)
        model.store.require_idle("load")
    for name, view in model.store.saved.items():
        write(view, weights[name])
    model.store.whole.trained = False
    return model, metadata


def _require_equal(where: str, model: Layer, weights: Mapping[str, NDArray[Any]], error: type[Exception]) -> None:
    """Check that the tensors have the names and shapes of the model's parameters and buffers."""
    specs = {**model.named_parameters(), **model.named_buffers()}
    for name, spec in specs.items():
        if name not in weights:
            raise error(f"{where}: tensor {name!r} is missing, which the model has as {spec.shape}")
        if weights[name].shape != spec.shape:
            size = math.prod(spec.shape)
            raise error(
                f"{where}: tensor {name!r} is {weights[name].shape}, but the model has it as {spec.shape}"
                + (f", {size} elements" if size > 10**9 else "")
            )
        if weights[name].dtype.kind != "f":
            raise error(f"{where}: tensor {name!r} is of {weights[name].dtype}, but parameters are floats")
    unknown = sorted(weights.keys() - specs.keys())
    if unknown:
        raise error(f"{where}: tensor {unknown[0]!r} belongs to no layer of the model")


def _dtype(where: str, weights: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    names = {array.dtype.name for array in weights.values()} or {metadata.get("dtype", "float32")}
    if len(names) > 1 or not names <= {"float32", "float64"}:
        raise CheckpointCorrupt(
            f"{where}: the weights are of {', '.join(sorted(names))}, must all be float32 or all float64"
        )
    return names.pop()


hooks.save.register(save)
