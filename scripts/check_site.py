"""Checks that the reference of a built site has every public name: python scripts/check_site.py SITE

The site's objects.inv lists what the reference documents. The public names are those in `__all__` of each public module.
"""

from __future__ import annotations

import inspect
import sys
import zlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import gradring as gr

MODULES = (
    "callbacks",
    "comm",
    "datasets",
    "errors",
    "interop",
    "losses",
    "metrics",
    "nn",
    "ops",
    "optim",
    "sources",
    "transforms",
)
# Modules that need another library.
MORE = {"sklearn": "sklearn", "torch": "torch"}
TOP = ("History", "Loader", "Trainer", "check_grad", "load")


def documented(site: Path) -> set[str]:
    """The dotted names in objects.inv."""
    inventory = (site / "objects.inv").read_bytes()
    begin = 0
    for _ in range(4):  # its header has four lines
        begin = inventory.index(b"\n", begin) + 1
    lines = zlib.decompress(inventory[begin:]).decode("utf-8").splitlines()
    return {line.split(" ")[0] for line in lines}


def public() -> dict[str, object]:
    """Functions and classes by the names that users write."""
    names: dict[str, object] = {f"gradring.{name}": getattr(gr, name) for name in TOP}
    for module in [*MODULES, *(name for name, needed in MORE.items() if find_spec(needed))]:
        loaded = import_module(f"gradring.{module}")
        names |= {f"gradring.{module}.{name}": getattr(loaded, name) for name in loaded.__all__}
    operations = {f"gradring.ops.{name}" for name in gr.ops.__all__}  # native objects, neither classes nor routines
    kept = (inspect.isclass, inspect.isroutine)
    return {name: value for name, value in names.items() if name in operations or any(kind(value) for kind in kept)}


def main(site: Path) -> int:
    """Prints what the reference lacks."""
    known = documented(site)
    # A function or class is listed by the module that defines it, which is the public one or lies in it.
    places = {(name.split(".")[1], name.split(".")[-1]) for name in known if name.startswith("gradring.")}
    elsewhere = {f"{value.__module__}.{value.__name__}" for value in public().values() if hasattr(value, "__name__")}
    missing = [
        name
        for name, value in public().items()
        if (name.split(".")[1], name.split(".")[-1]) not in places
        and f"{getattr(value, '__module__', '')}.{getattr(value, '__name__', '')}" not in known & elsewhere
    ]
    for name in missing:
        print(f"the reference lacks {name}: name its module in a page of docs/reference")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
