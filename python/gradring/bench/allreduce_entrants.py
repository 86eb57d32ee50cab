"""Who races in `gradring bench allreduce`: the launchers' commands and settings of our library and of gloo."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

__all__ = ["RANK", "Entrant", "entrants"]

RANK = "gradring.bench.allreduce_rank"  # the module that each rank runs


@dataclass(frozen=True)
class Entrant:
    """A contender: the launcher's command (with `{ranks}` and `{folder}` to fill in), the library, and its settings.

    The library is one of `allreduce_libraries.LIBRARIES` or a `module:function`, and options for it.
    """

    name: str
    launcher: tuple[str, ...]
    library: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    family: str = ""  # "ours", "gloo" or "mpi"
    links: dict[str, str] = field(default_factory=dict)  # files to link in the folder, by name
    folder: str = ""  # where the library's module lies; empty: in an installed package


def entrants() -> list[Entrant]:
    """Our contenders, and gloo."""
    own = (sys.executable, "-m", "gradring", "run", "-n", "{ranks}", "--bind", "none", "-m", RANK)
    return [
        Entrant("gradring", own, ("ours",), family="ours"),
        Entrant("gradring, NumPy arrays", own, ("ours", "numpy=1"), family="ours"),
        Entrant("gloo", own, ("gloo",), {"GLOO_SOCKET_IFNAME": "lo"}, family="gloo"),
    ]
