"""Starting ranks on one host, and how they find each other: `gradring run`, `gr.comm.spawn`, and foreign launchers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradring.launch.fresh import spawn
    from gradring.launch.meeting import rendezvous
    from gradring.launch.world import World

__all__ = ["World", "rendezvous", "spawn"]

# Modules are imported on first use, because the loader needs only one of them.
_NAMES = {"World": "world", "rendezvous": "meeting", "spawn": "fresh"}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'gradring.launch' has no attribute {name!r}")
    value = getattr(import_module(f"gradring.launch.{_NAMES[name]}"), name)
    globals()[name] = value
    return value
