"""Public names that are planned. If one is not built yet, reading it raises ``NotBuilt`` with a sentence about this
version.

A module's own names come first, so a name may stay in the table when it is built; delete it then.

>>> import gradring as gr
>>> hasattr(gr.nn, "NoSuchLayer"), hasattr(gr, "no_such_name")
(False, False)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from gradring.errors import NotBuilt

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


def refuse(module: str, name: str) -> NoReturn:
    """Raise the error for a name that ``module`` does not have: ``NotBuilt`` if the name is planned."""
    instead = PLANNED.get(module, {}).get(name)
    if instead is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    public = "gr" + module.removeprefix("gradring")
    raise NotBuilt(f"{public}.{name} is planned; {instead}")


def getter(module: str) -> Callable[[str], Any]:
    """A module's ``__getattr__``."""
    return lambda name: refuse(module, name)
