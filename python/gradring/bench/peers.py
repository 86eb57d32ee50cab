"""Peers that the package does not contain: ``gradring bench --peers-from FOLDER`` runs those of a folder.

The folder's ``peers.py`` says which there are. It defines some of these dicts, each from a contender's name to
``module:function option=value ...``, where the module lies in the folder (:mod:`gradring.bench.contender` says what the
function does):

``STEP``, ``FIT``, ``GEMM``, ``DP``
    peers of the race of that name; each runs with one thread and with all (``DP``: with one thread per rank)
``ALLREDUCE``
    ``module:function``; called with the folders of ``--mpi-from``, the number of ranks, their cores and the rows' bytes, it
    returns what races in ``gradring bench allreduce`` (:mod:`gradring.bench.allreduce_entrants`)
``UNFAIR``
    a dict from a library that cannot race there to the reason
``LOADER``
    a dict from the key of a loader's race to such a dict
``DIFFERS``
    a dict from a name to a sentence about what that peer computes differently: its first result must still agree. If that holds
    for some optimizers only (``"momentum"``, ``"sgd"``, ``"adam"``), the value is a dict from their names to sentences

The file is Python code, and is run: name only folders that you trust.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .harness import Contender

__all__ = ["Peers", "chosen_names", "contenders", "read_peers"]


@dataclass(frozen=True)
class Peers:
    """The peers that a folder's ``peers.py`` defines."""

    folder: str
    step: dict[str, str] = field(default_factory=dict)
    fit: dict[str, str] = field(default_factory=dict)
    gemm: dict[str, str] = field(default_factory=dict)
    dp: dict[str, str] = field(default_factory=dict)
    allreduce: str = ""
    unfair: dict[str, str] = field(default_factory=dict)
    loader: dict[str, dict[str, str]] = field(default_factory=dict)
    differs: dict[str, str | dict[str, str]] = field(default_factory=dict)

    def difference_of(self, name: str) -> dict[str, str]:
        """What a peer computes differently, by the optimizer, or for all under ""."""
        what = self.differs.get(name, {})
        return {"": what} if isinstance(what, str) else what


NO_PEERS = Peers("")


def read_peers(folder: Path | None) -> Peers:
    """The peers of a folder; none without a folder. FileNotFoundError if the folder has no ``peers.py``."""
    if folder is None:
        return NO_PEERS
    path = folder.resolve() / "peers.py"
    if not path.is_file():
        raise FileNotFoundError(f"[bench] --peers-from {folder}: expected a folder with a file peers.py")
    spec = importlib.util.spec_from_file_location("gradring_bench_peers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = ("step", "fit", "gemm", "dp", "allreduce", "unfair", "loader", "differs")
    return Peers(str(path.parent), **{n: getattr(module, n.upper()) for n in names if hasattr(module, n.upper())})


def chosen_names(known: Sequence[str], only: Sequence[str]) -> set[str]:
    """The names in `known` that `only` lists, or all if it is empty. ValueError for a name that is not in `known`.

    Case does not matter, and "PyTorch" is "torch", so the names in the README's tables work.
    """
    by_plain = {_plain(name): name for name in known}
    unknown = [name for name in only if _plain(name) not in by_plain]
    if unknown:
        raise ValueError(f"[bench] no peer is called {unknown[0]!r}: must be one of {', '.join(known)}")
    return {by_plain[_plain(name)] for name in only} or set(known)


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("pytorch", "torch").split())


def contenders(
    own: dict[str, str], more: dict[str, str], peers: Peers, only: Sequence[str] = (), count: int | None = None
) -> list[Contender]:
    """Each peer of the package and of the folder with one thread and with all, or with `count` threads; only those that
    `only` names, if any."""
    everyone = {**own, **more}
    chosen = chosen_names(list(everyone), only)
    # XLA reads this variable; other libraries ignore it.
    one_thread = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    found = []
    for name, factory in everyone.items():
        if name not in chosen:
            continue
        folder, differs = peers.folder if name in more else "", peers.difference_of(name)
        for threads in (1, None) if count is None else (count,):
            environment = one_thread if threads == 1 else {}
            label = f"{name} {threads or 'all'}"
            found.append(Contender(label, factory, threads, environment, folder=folder, differs=differs))
    return found
