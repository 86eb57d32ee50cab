"""Starting ranks on one host, and how they find each other: `gradring run`, `gr.comm.spawn`, and foreign launchers."""

from __future__ import annotations

from gradring.launch.rendezvous import rendezvous
from gradring.launch.spawn import spawn
from gradring.launch.world import World

__all__ = ["World", "rendezvous", "spawn"]
