"""The architecture of a model as data, which a file holds beside the weights.

A layer is described by the name of its class and the arguments that it was made with: numbers, texts, None, lists of them,
and other layers. Building a model from a description only makes layers of this package, and of the classes that the caller
gives by name: a description never names a module, and nothing in it is looked up or run.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from gradring import nn
from gradring.errors import CheckpointCorrupt, CheckpointMismatch, reason
from gradring.nn.layer import Layer, NotData

__all__ = ["MOST_LAYERS", "build", "describe"]

MOST_LAYERS = 100_000
_DEEPEST = 64  # layers within layers, and lists within lists
_LONGEST = 1 << 24  # characters of a description


def _library() -> dict[str, type[Layer]]:
    found = {name: getattr(nn, name) for name in nn.__all__}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, Layer) and kind is not Layer
    }


def describe(model: Layer) -> str:
    """The description of a model, as JSON.

    Some layers are described only by their name and a reason: those whose arguments are not all data, such as
    ``gr.nn.Function``, and your own ones that were changed after they were made; likewise models whose layers are nested
    too deep. To load such a file, build the model in Python.

    >>> describe(nn.Sequential(nn.Linear(4, 2, bias=False), nn.ReLU()))
    '{"layer":"Sequential","given":[{"layer":"Linear","given":[4,2],"named":{"bias":false}},{"layer":"ReLU"}]}'
    """
    try:
        entry = _layer(model, 0)
    except _TooDeep:
        entry = {**_name(model), "opaque": f"it has layers within layers more than {_DEEPEST} deep"}
    return json.dumps(entry, separators=(",", ":"))


class _TooDeep(Exception):
    """Layers are nested deeper than a reader of the file accepts."""


def _name(layer: Layer) -> dict[str, Any]:
    kind = type(layer)
    return {"layer" if _library().get(kind.__name__) is kind else "class": kind.__name__}


def _layer(layer: Layer, depth: int) -> dict[str, Any]:
    if depth > _DEEPEST:
        raise _TooDeep
    entry = _name(layer)
    given, named = layer.__dict__.get("_made_with", (None, None))
    if given is None:
        return {**entry, "opaque": "it does not know the arguments that it was made with"}
    changed = None if "layer" in entry else _changed(layer, given, named)
    if changed is not None:
        return {**entry, "opaque": changed}
    try:
        if given:
            entry["given"] = [_value(value, f"argument {number}", depth) for number, value in enumerate(given)]
        if named:
            entry["named"] = {name: _value(value, f"argument {name!r}", depth) for name, value in named.items()}
    except TypeError as error:
        return {key: value for key, value in entry.items() if key in ("layer", "class")} | {"opaque": str(error)}
    return entry


def _changed(layer: Layer, given: tuple[Any, ...], named: Mapping[str, Any]) -> str | None:
    """The attributes of a user's layer that were assigned after it was made, so that its arguments do not describe them."""
    try:
        bound = inspect.signature(type(layer).__init__).bind(layer, *given, **named)
    except (TypeError, ValueError):
        return "its arguments are not those of its class"
    bound.apply_defaults()
    for name, value in bound.arguments.items():
        now = layer.__dict__.get(name, value)
        plain = all(v is None or isinstance(v, (bool, int, float, str)) for v in (value, now))
        if (plain and now != value) or (isinstance(value, Layer) and isinstance(now, Layer) and now is not value):
            return f"its {name} is {str(now)[:40]}, but it was made with {str(value)[:40]}"
    return None


def _value(value: Any, what: str, depth: int) -> Any:
    if isinstance(value, Layer):
        return _layer(value, depth + 1)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)) and depth <= _DEEPEST:
        return [_value(part, what, depth + 1) for part in value]
    kind = value.kind if isinstance(value, NotData) else type(value).__name__
    raise TypeError(f"{what} is of {kind}, which is no data")


class _Reader:
    """Builds the layers of one description."""

    def __init__(self, where: str, own: Mapping[str, Callable[..., Layer]]) -> None:
        self.where, self.own, self.library = where, own, _library()
        self.count = 0

    def corrupt(self, path: str, what: str) -> CheckpointCorrupt:
        place = f"layer {path}" if path else "the model"
        return CheckpointCorrupt(f"{self.where}: the architecture does not fit: {place} {what}")

    def layer(self, entry: Any, path: str, depth: int) -> Layer:
        if depth > _DEEPEST:
            raise self.corrupt(path, f"is more than {_DEEPEST} layers deep")
        self.count += 1
        if self.count > MOST_LAYERS:
            raise self.corrupt(path, f"is one too many: the most are {MOST_LAYERS}")
        make = self.maker(entry, path)
        given, named = entry.get("given", []), entry.get("named", {})
        if not isinstance(given, list) or not isinstance(named, dict):
            raise self.corrupt(path, "has arguments that are neither a list nor a dict")
        inner = f"{path}." if path else ""
        arguments = [self.value(value, f"{inner}{number}", depth) for number, value in enumerate(given)]
        keywords = {name: self.value(value, f"{inner}{name}", depth) for name, value in named.items()}
        try:
            made = make(*arguments, **keywords)
        except (TypeError, ValueError, OverflowError) as error:
            name = entry.get("layer") or entry["class"]
            raise self.corrupt(path, f"cannot be made as {name[:80]}: {reason(error)}") from error
        if not isinstance(made, Layer):
            raise TypeError(f"{self.where}: what layers= gives for {entry.get('class')!r} made a {type(made).__name__}")
        return made

    def maker(self, entry: Any, path: str) -> Callable[..., Layer]:
        if not isinstance(entry, dict) or not entry.keys() <= {"layer", "class", "given", "named", "opaque"}:
            raise self.corrupt(path, "is not described by a name and arguments")
        foreign = "class" in entry
        name = entry.get("class" if foreign else "layer")
        if not isinstance(name, str) or ("layer" in entry) == foreign:
            raise self.corrupt(path, "has no name of a class")
        place = f"layer {path}" if path else "the model"
        if "opaque" in entry or (not foreign and name == "Function"):
            raise CheckpointMismatch(
                f"{self.where}: {place}, {name[:80]}, cannot be made from a file: {str(entry.get('opaque', ''))[:200]}; "
                "build the model in Python, and take the weights by gr.load(path, model=model)"
            )
        make = self.own.get(name) if foreign else self.library.get(name)
        if make is None and foreign:
            raise CheckpointMismatch(
                f"{self.where}: {place} is of a class {name[:80]!r} outside gradring, which a file cannot name: give it "
                f"by gr.load(path, layers={{{name[:80]!r}: TheClass}}), or build the model in Python, and take the weights "
                "by gr.load(path, model=model)"
            )
        if make is None:
            raise CheckpointMismatch(
                f"{self.where}: {place} is a gr.nn.{name[:80]}, which this version of gradring does not have"
            )
        return make

    def value(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, dict):
            return self.layer(value, path, depth + 1)
        if isinstance(value, list):
            if depth > _DEEPEST:
                raise self.corrupt(path, f"has lists more than {_DEEPEST} deep")
            return [self.value(part, f"{path}.{number}", depth + 1) for number, part in enumerate(value)]
        return value


def build(text: str, where: str, layers: Mapping[str, Callable[..., Layer]] | None = None) -> Layer:
    """Build the model of a description, without memory for its parameters. ``layers`` has other classes by name.

    Raises ``CheckpointCorrupt`` if the text is no description, and ``CheckpointMismatch`` if it names a class or an
    argument that does not exist; both messages begin with ``where``.

    >>> build('{"layer":"Linear","given":[4,2]}', "m.safetensors")
    Linear(4, 2)
    """
    if len(text) > _LONGEST:
        raise CheckpointCorrupt(f"{where}: the architecture has {len(text)} characters, the most are {_LONGEST}")
    try:
        data = json.loads(text)
        return _Reader(where, layers or {}).layer(data, "", 0)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CheckpointCorrupt(f"{where}: the architecture is no JSON that can be read: {error}") from error
    except ValueError as error:  # such as an int of too many digits
        raise CheckpointCorrupt(f"{where}: the architecture does not fit: {reason(error)}") from error
